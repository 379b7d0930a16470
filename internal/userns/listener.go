package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Listener returns the process that listens on a unix socket, 0 when it is in
// a PID namespace that this one cannot see.
func Listener(socket string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return 0, err
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// ErrForeign is returned by Apart for namespaces that cannot be joined.
var ErrForeign = errors.New("it runs in namespaces that v6node cannot join")

// Apart tells whether a process lives in another user namespace than this one,
// which Join leads to. ErrForeign says that it does not lead there.
func Apart(pid int) (bool, error) {
	same, err := sameNamespace(pid, "user")
	if err != nil || same {
		return false, err
	}
	f, err := os.Open(nsPath(pid, "user"))
	if err != nil {
		return false, foreign(pid, err)
	}
	defer f.Close()
	uid, err := unix.IoctlGetInt(int(f.Fd()), unix.NS_GET_OWNER_UID)
	if err != nil {
		return false, foreign(pid, err)
	}
	if uid != os.Geteuid() {
		return false, foreign(pid, fmt.Errorf("they belong to user %d", uid))
	}
	if same, err = sameNamespace(pid, "pid"); err != nil || !same {
		return false, foreign(pid, errors.Join(err, errors.New("it has a PID namespace of its own")))
	}
	return true, nil
}

func foreign(pid int, err error) error {
	return fmt.Errorf("process %d: %w: %w", pid, ErrForeign, err)
}

func nsPath(pid int, kind string) string {
	return "/proc/" + strconv.Itoa(pid) + "/ns/" + kind
}

func sameNamespace(pid int, kind string) (bool, error) {
	mine, err := os.Stat("/proc/self/ns/" + kind)
	if err != nil {
		return false, err
	}
	theirs, err := os.Stat(nsPath(pid, kind))
	if errors.Is(err, fs.ErrPermission) {
		return false, foreign(pid, err)
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(mine, theirs), nil
}
