package admin

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of the socket, as the kernel saw it
// when it connected.
type Peer struct {
	UID, GID, PID int
}

// peerOf asks the kernel who is at the other end.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if optErr != nil {
		return Peer{}, fmt.Errorf("ask who is at the other end of the socket: %w", optErr)
	}
	return Peer{UID: int(cred.Uid), GID: int(cred.Gid), PID: int(cred.Pid)}, nil
}

// mayAdminister: root and the user who runs the node, nobody else. A process
// from outside the node's user namespace appears as the overflow user.
func mayAdminister(p Peer, owner int) bool { return p.UID == 0 || p.UID == owner }

type peerKey struct{}

// PeerFrom returns who sent the request in which a Station method is called.
// It is false where the method is not called through the socket.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}
