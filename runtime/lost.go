package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/pidfd"
)

// How often in a row a container's process must be found dead while the runtime
// says that it runs. It may be about to tell; as long as the container's monitor
// lives it will, however slow the machine is, unless the monitor hangs.
const (
	lostLooks    = 2
	hangingLooks = 60
)

// lostExit is the exit code of a container whose own one nobody knows, as
// containerd has it.
const lostExit = 255

// lookout watches the process of one container beside its runtime. Runtimes
// learn of an end from a monitor (CRI-O's conmon, containerd's shim); CRI-O
// calls a container running for ever when its monitor was killed, which the
// kernel does when a run's memory is short and the monitor is not protected.
type lookout struct {
	process *pidfd.Process // nil until it is known
	monitor *pidfd.Process // the process's parent, nil if it is not known
	dead    int            // looks in a row that found no process
}

// lost tells whether the container's process has ended without the runtime
// noticing. pid asks the runtime for the process; 0 is none that is known.
func (l *lookout) lost(pid func() int) bool {
	if l.process == nil {
		id := pid()
		if id <= 0 {
			l.dead = 0
			return false
		}
		p, err := pidfd.Open(id)
		if err != nil && !errors.Is(err, pidfd.ErrEnded) {
			l.dead = 0
			return false
		}
		if err == nil {
			l.process = p
			l.findMonitor(id)
		}
	}
	if l.process != nil && !l.process.Ended() {
		l.dead = 0
		return false
	}
	l.dead++
	if l.monitor != nil && !l.monitor.Ended() {
		return l.dead >= hangingLooks
	}
	return l.dead >= lostLooks
}

// findMonitor takes hold of the parent of a process: of a container's first
// process that is its monitor, or init where the monitor is gone already.
func (l *lookout) findMonitor(pid int) {
	parent, err := statField(fmt.Sprintf("/proc/%d", pid), 4)
	if err != nil || parent <= 1 {
		return
	}
	if p, err := pidfd.Open(int(parent)); err == nil {
		l.monitor = p
	}
}

func (l *lookout) close() {
	for _, p := range []*pidfd.Process{l.process, l.monitor} {
		if p != nil {
			_ = p.Close() // nothing is written to it
		}
	}
}

// samePIDs tells whether the runtime's process numbers are those of this
// process: whether whoever listens on the socket is in the same PID namespace.
func samePIDs(ctx context.Context, socket string) (bool, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false, err
	}
	var peer *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return false, err
	}
	if credErr != nil {
		return false, credErr
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", peer.Pid))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // 0 or unknown here: another namespace
	}
	if err != nil {
		return false, err
	}
	ours, err := os.Readlink("/proc/self/ns/pid")
	return theirs == ours, err
}
