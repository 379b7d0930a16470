package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// SocketName is the socket's name in the state directory.
const SocketName = "admin.sock"

// bindDir is where the socket is made before it gets its place.
const bindDir = ".admin.new"

// maxConns bounds the connections that a listener accepts; more wait.
const maxConns = 256

// Listener is the administrator's socket. Its Close removes the socket.
type Listener struct {
	unix   *net.UnixListener
	path   string
	made   fs.FileInfo
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Listen makes the socket in a state directory, in the place of one that an
// earlier node left. The caller holds the directory's lock and closes the
// listener. Nobody but the owner can connect at any moment.
func Listen(dir string) (_ *Listener, err error) {
	path := filepath.Join(dir, SocketName)
	fail := func(err error) (*Listener, error) {
		return nil, fmt.Errorf("make the administrator's socket %s: %w", path, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fail(err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fail(fmt.Errorf("others may write to %s and could put a socket of theirs in its place: run chmod 700 %[1]s", dir))
	}
	if old, err := os.Lstat(path); err == nil && old.Mode().Type() != fs.ModeSocket {
		return fail(errors.New("something that is not a socket is there: move it away"))
	}
	// Bound in a directory of the owner's alone, then moved, the socket has
	// its mode before anyone can reach it.
	tmp := filepath.Join(dir, bindDir)
	if err := os.RemoveAll(tmp); err != nil {
		return fail(err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	var l *net.UnixListener
	if err := atDir(tmp, func(dir string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName)})
		return err
	}); err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false) // it goes by another name then
	bound := filepath.Join(tmp, SocketName)
	made, err := place(bound, path)
	if err != nil {
		return fail(errors.Join(err, l.Close()))
	}
	return &Listener{unix: l, path: path, made: made, slots: make(chan struct{}, maxConns), closed: make(chan struct{})}, nil
}

func place(bound, path string) (fs.FileInfo, error) {
	if err := os.Chmod(bound, 0o600); err != nil {
		return nil, err
	}
	made, err := os.Lstat(bound)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(bound, path)
}

// atDir calls fn with a short name of dir: a socket's address holds 107 bytes,
// which the path of a state directory may exceed.
func atDir(dir string, fn func(short string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return errors.Join(fn("/proc/self/fd/"+strconv.Itoa(fd)), unix.Close(fd))
}

// Path is the socket's path.
func (l *Listener) Path() string { return l.path }

// Addr returns the socket's address.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Accept returns the next connection, which knows its peer.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.unix.AcceptUnix()
		if err != nil {
			<-l.slots
			return nil, err
		}
		peer, err := peerOf(c)
		if err != nil { // it is gone again, or not to be known: either way it gets nothing
			_ = c.Close()
			continue
		}
		return &conn{UnixConn: c, peer: peer, release: sync.OnceFunc(func() { <-l.slots })}, nil
	}
}

// Close ends Accept and removes the socket, unless another has its place.
func (l *Listener) Close() (err error) {
	l.once.Do(func() {
		close(l.closed)
		if now, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(now, l.made) {
			err = os.Remove(l.path)
		}
		err = errors.Join(err, l.unix.Close())
	})
	return err
}

// conn is a connection that knows its peer and gives its slot back.
type conn struct {
	*net.UnixConn
	peer    Peer
	release func()
}

func (c *conn) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}
