package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// listenBacklog is bounded by the namespace's own net.core.somaxconn anyway.
const listenBacklog = 4096

// Listen opens a TCP listener inside the namespace. addr is "IP:port" with an
// IPv4 address of 127.0.0.0/8 (they all exist wherever lo is up) or [::1]; port
// 0 lets the kernel choose. A name or a wildcard is refused: only lo may be
// listened on. The listener belongs to the caller, works on any goroutine of
// this process and outlives the Netns. It keeps the namespace alive in the
// kernel until it, and each connection that it accepted, are closed.
//
// Listen trusts the namespace: call Verify first.
func (n *Netns) Listen(addr string) (net.Listener, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen in the sandbox on %q: it is not an address and a port: %w", addr, err)
	}
	if !ap.Addr().IsLoopback() || ap.Addr().Zone() != "" || ap.Addr().Is4In6() {
		return nil, fmt.Errorf("listen in the sandbox on %q: only loopback addresses are allowed", addr)
	}
	return n.listen(ap)
}

// ListenAs is Listen on the address of another machine: lo gets it first, as the
// one host that it is, and so a program inside that connects to it is connected
// to the listener. No packet leaves lo, and no route but the kernel's own to
// that one address comes about. An address that is there already is no error, so
// that several ports of one address can be served and a restarted node can serve
// them again.
//
// Verify refuses a namespace with such an address: call it before.
func (n *Netns) ListenAs(ap netip.AddrPort) (net.Listener, error) {
	a := ap.Addr()
	switch {
	case a.IsLoopback():
		return n.Listen(ap.String())
	case !a.IsGlobalUnicast() || a.Zone() != "" || a.Is4In6() || a == podPrefix().Addr():
		return nil, fmt.Errorf("listen in the sandbox on %s: it is not the address of another machine", ap)
	}
	if err := n.addHost(a); err != nil {
		return nil, fmt.Errorf("listen in the sandbox on %s: give %s that address: %w", ap, loName, err)
	}
	return n.listen(ap)
}

// addHost gives lo one more address.
func (n *Netns) addHost(a netip.Addr) error {
	add := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		add.Flags = unix.IFA_F_NODAD // to be usable at once
	} else {
		add.Scope = int(netlink.SCOPE_HOST) // never the source of a packet to elsewhere
	}
	if err := n.withLo(func(h *netlink.Handle, lo netlink.Link) error { return h.AddrAdd(lo, add) }); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if a.Is6() {
		return n.awaitHost(a)
	}
	return nil
}

// hostTime bounds awaitHost, which takes a millisecond.
const hostTime = 5 * time.Second

// awaitHost waits until an IPv6 address can be connected to, which the kernel makes
// possible a moment after it has it. A datagram socket sends nothing for that.
func (n *Netns) awaitHost(a netip.Addr) error {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		err := n.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrInet6{Port: 9, Addr: a.As16()})
		})
		if err == nil || time.Since(begin) > hostTime {
			return err
		}
	}
}

// listen opens a listener on an address of the namespace.
func (n *Netns) listen(ap netip.AddrPort) (net.Listener, error) {
	addr := ap.String()
	fd := -1
	// Only the system calls happen inside; whatever Go keeps per process
	// (resolver, backlog, poller) is set up outside, in its own namespace.
	if err := n.Do(func() (err error) {
		fd, err = listenSocket(ap)
		return err
	}); err != nil {
		return nil, fmt.Errorf("listen in the sandbox on %s: %w", addr, err)
	}
	file := os.NewFile(uintptr(fd), "sandbox:"+addr)
	defer file.Close() // FileListener has its own copy
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listen in the sandbox on %s: %w", addr, err)
	}
	return l, nil
}

// listenSocket returns a listening descriptor in the namespace of the thread.
func listenSocket(ap netip.AddrPort) (int, error) {
	family, port := unix.AF_INET, int(ap.Port())
	var sa unix.Sockaddr
	if ap.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: port, Addr: ap.Addr().As4()}
	} else {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: port, Addr: ap.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := bindAndListen(fd, sa); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func bindAndListen(fd int, sa unix.Sockaddr) error {
	// A node that was restarted must get its port back although connections
	// of the former one linger. It does not let anybody else share the port.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, listenBacklog))
}
