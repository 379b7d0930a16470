package kubelet

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unixSocket is a unix socket of this network namespace.
type unixSocket struct {
	name string // "" without one
	peer uint32 // inode of the socket at the other end, 0 without one
}

// Of linux/unix_diag.h; formats are in sock_diag(7).
const (
	diagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	showName     = 1 << 0
	showPeer     = 1 << 2
	attrName     = 0
	attrPeer     = 2
	diagHeader   = 16 // struct unix_diag_msg
)

// dumpTime bounds one answer of the kernel, which does not wait for anything.
const dumpTime = 5 * time.Second

// unixSockets asks the kernel for all unix sockets, of whatever type: what
// stands in the middle of the answer must not end it.
func unixSockets() (all []unixSocket, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel for sockets: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(dumpTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, fmt.Errorf("ask the kernel for sockets: %w", err)
	}
	const length = unix.SizeofNlMsghdr + 24 // and struct unix_diag_req
	ask := make([]byte, length)
	order := binary.NativeEndian
	order.PutUint32(ask[0:], length)
	order.PutUint16(ask[4:], diagByFamily)
	order.PutUint16(ask[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	ask[16] = unix.AF_UNIX
	order.PutUint32(ask[20:], ^uint32(0)) // in every state
	order.PutUint32(ask[28:], showName|showPeer)
	if err := unix.Sendto(fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask the kernel for sockets: %w", err)
	}
	buf := make([]byte, 64<<10) // the kernel's parts have 32 KiB at most
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("ask the kernel for sockets: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("the kernel's answer about sockets is not understood: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return all, nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return nil, fmt.Errorf("the kernel's answer about sockets is not understood: an error of %d bytes", len(m.Data))
				}
				return nil, fmt.Errorf("ask the kernel for sockets: %w", unix.Errno(-int32(order.Uint32(m.Data))))
			case diagByFamily:
				if s, ok := parseSocket(m.Data); ok {
					all = append(all, s)
				}
			}
		}
	}
}

// parseSocket reads one socket of the answer; ok is false for none.
func parseSocket(data []byte) (s unixSocket, ok bool) {
	if len(data) < diagHeader {
		return s, false
	}
	order := binary.NativeEndian
	for rest := data[diagHeader:]; len(rest) >= 4; {
		size, kind := int(order.Uint16(rest)), order.Uint16(rest[2:])
		if size < 4 || size > len(rest) {
			return s, false
		}
		value := rest[4:size]
		switch {
		case kind == attrName:
			// The kernel ends a path with a zero byte.
			s.name, _, _ = strings.Cut(string(value), "\x00")
		case kind == attrPeer && len(value) >= 4:
			s.peer = order.Uint32(value)
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return s, true
}
