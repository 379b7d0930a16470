package cni

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNotNetns is wrapped by OpenNetns when the path exists but is not a network
// namespace.
var ErrNotNetns = errors.New("not a network namespace")

// Netns is a network namespace that is held open. All methods may be called
// concurrently; after Close they return an error that wraps os.ErrClosed.
// Listeners made by Listen stay usable after Close.
type Netns struct {
	path string
	file *os.File
}

// procNetns is the one kind of symbolic link that OpenNetns follows: the
// kernel's own link to the namespace of a process.
var procNetns = regexp.MustCompile(`^/proc/([1-9][0-9]*|self|thread-self)/ns/net$`)

// OpenNetns opens the network namespace at path: a bind mount, as containerd
// and CRI-O make them, or /proc/PID/ns/net. The last element of the path must
// not be a symbolic link (except the kernel's under /proc), and must be an
// object of the kernel's nsfs and of the network type. A path that does not
// exist gives an error for which errors.Is(err, os.ErrNotExist) holds. The
// namespace of the calling process itself is refused with ErrForeignNetwork,
// for a sandbox that shares it is not isolated at all.
//
// The caller closes the result.
func OpenNetns(path string) (*Netns, error) {
	n, err := openNetns(path)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace %q: %w", path, err)
	}
	own, err := n.isOwn()
	if err != nil {
		n.Close()
		return nil, err
	}
	if own {
		n.Close()
		return nil, &ForeignNetworkError{Path: path, Found: []string{"the sandbox shares the network of the node's own process"}}
	}
	return n, nil
}

func openNetns(path string) (*Netns, error) {
	// Nothing is opened for reading before it is known to be a namespace: a
	// FIFO would block, and opening a device can have effects.
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !procNetns.MatchString(path) {
		flags |= unix.O_NOFOLLOW
	}
	handle, err := retryEINTR(func() (int, error) { return unix.Open(path, flags, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(handle)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(handle, &fs); err != nil {
		return nil, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, ErrNotNetns
	}
	fd, err := retryEINTR(func() (int, error) {
		return unix.Open("/proc/self/fd/"+strconv.Itoa(handle), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ask for its type: %w", err)
	}
	if kind != unix.CLONE_NEWNET {
		unix.Close(fd)
		return nil, fmt.Errorf("%w but a namespace of another type", ErrNotNetns)
	}
	return &Netns{path: path, file: os.NewFile(uintptr(fd), path)}, nil
}

// isOwn tells whether n is the namespace that the calling process lives in.
func (n *Netns) isOwn() (bool, error) {
	mine, err := os.Stat(selfNetns)
	if err != nil {
		return false, fmt.Errorf("look at the own network namespace: %w", err)
	}
	theirs, err := n.file.Stat()
	if err != nil {
		return false, fmt.Errorf("look at the network namespace %q: %w", n.path, err)
	}
	return os.SameFile(mine, theirs), nil
}

// selfNetns names the namespace of the calling thread, and not of the process's
// first one.
const selfNetns = "/proc/thread-self/ns/net"

// Path returns the path that was given to OpenNetns.
func (n *Netns) Path() string { return n.path }

// Close lets go of the namespace.
func (n *Netns) Close() error { return n.file.Close() }

// Do runs fn on a thread that is inside the namespace and returns fn's error.
// fn must not start goroutines that rely on being inside: they are not. It may
// open sockets, which stay in the namespace for ever.
func (n *Netns) Do(fn func() error) error {
	conn, err := n.file.SyscallConn()
	if err != nil {
		return n.closed()
	}
	// A goroutine of its own, so that its thread can be thrown away. Control
	// keeps the descriptor open until it has ended.
	var result error
	if err := conn.Control(func(fd uintptr) {
		done := make(chan error, 1)
		go func() {
			err := errGoexit
			defer func() { done <- err }()
			runtime.LockOSThread()
			if unix.Gettid() != unix.Getpid() {
				err = n.inside(int(fd), fn)
				return
			}
			// Not on the process's first thread: Go cannot end that one, and
			// the system shows its namespace as that of the process. While
			// it is held here, the next goroutine gets another.
			defer runtime.UnlockOSThread()
			other := make(chan error, 1)
			go func() {
				err := errGoexit
				defer func() { other <- err }()
				runtime.LockOSThread()
				err = n.inside(int(fd), fn)
			}()
			err = <-other
		}()
		result = <-done
	}); err != nil {
		return n.closed()
	}
	return result
}

func (n *Netns) closed() error {
	return fmt.Errorf("enter the network namespace %q: %w", n.path, os.ErrClosed)
}

// errGoexit is returned by Do when fn called runtime.Goexit, as t.FailNow does.
var errGoexit = errors.New("the function ended its goroutine")

// inside is called on a locked thread and must be the last thing that its
// goroutine does.
func (n *Netns) inside(fd int, fn func() error) error {
	home, err := retryEINTR(func() (int, error) {
		return unix.Open(selfNetns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("hold on to the own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("enter the network namespace %q: the node lacks CAP_SYS_ADMIN over it; "+
				"run the node as root, or in the user namespace of a rootless runtime: %w", n.path, err)
		}
		return fmt.Errorf("enter the network namespace %q: %w", n.path, err)
	}
	defer func() {
		// A thread that cannot return stays locked, and Go ends it together
		// with this goroutine; no other goroutine ever runs on it.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// retryEINTR repeats an open that a signal interrupted: Go's own preemption
// signals make that happen.
func retryEINTR(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
