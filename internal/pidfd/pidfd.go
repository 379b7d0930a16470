// Package pidfd holds a process by a pidfd, so that a signal can never reach another
// process that was given the same number later.
package pidfd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrEnded is returned by Open when there is no such process.
var ErrEnded = errors.New("the process has ended")

// Process is one that may be anybody's, living or ended. Its methods may be called from
// several goroutines, except that one at a time waits. The caller closes it.
type Process struct{ f *os.File }

// Open holds the process that has a number now. Whoever knows it by more than its
// number looks at that once more when it is held.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrEnded
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open (Linux 5.3 or newer is needed): %w", err)
	}
	// Go's poller then waits for it, and no thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &Process{os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Close lets go of the process, and ends a Wait under way with an error.
func (p *Process) Close() error { return p.f.Close() }

// Signal does nothing to a process that has ended.
func (p *Process) Signal(s unix.Signal) error {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) {
		if sent = unix.PidfdSendSignal(int(fd), s, nil, 0); errors.Is(sent, unix.ESRCH) {
			sent = nil
		}
	})
	return errors.Join(err, sent)
}

// Ended tells whether the process has ended, collected by its parent or not.
func (p *Process) Ended() bool {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return false
	}
	over := false
	err = conn.Control(func(fd uintptr) { over = ended(fd) })
	return err == nil && over
}

// Wait returns nil when the process has ended, and the error of ctx when that ends first.
func (p *Process) Wait(ctx context.Context) error {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	given := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(given)
		_ = p.f.SetReadDeadline(time.Unix(1, 0)) // only closing forbids it, which ends the wait too
	})
	over := false
	err = conn.Read(func(fd uintptr) bool {
		over = ended(fd)
		return over
	})
	if !stop() {
		<-given
		_ = p.f.SetReadDeadline(time.Time{})
	}
	switch {
	case over:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ctx.Err()
	}
	return err
}

// ended: a pidfd is readable when its process has ended (pidfd_open(2)).
func ended(fd uintptr) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(set, 0)
	return err == nil && n == 1 && set[0].Revents&unix.POLLIN != 0
}
