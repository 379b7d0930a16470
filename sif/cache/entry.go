package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/newfile"
)

// poll is how often a lock that another process holds is tried.
const poll = 50 * time.Millisecond

const lockName = "lock"

// entry is one directory of the cache with a lock on it. It is for one goroutine.
type entry struct {
	dir  string
	lock *os.File
}

// How a directory is locked.
const (
	together = unix.LOCK_SH // to use what is there, or add to it
	removing = unix.LOCK_EX // to remove something
)

// enter locks the directory, which it makes when there is none, together with others. It
// waits for who removes something, which takes no time.
func enter(ctx context.Context, dir string) (*entry, error) { return lockWait(ctx, dir, together) }

// lockWait makes the directory and waits for the lock.
func lockWait(ctx context.Context, dir string, how int) (*entry, error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		e, err := tryLock(dir, how)
		switch {
		case err == nil:
			return e, nil
		case errors.Is(err, fs.ErrNotExist):
			continue // removed between two steps
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, err
		}
		t := time.NewTimer(poll)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// tryLock locks the directory if that is possible at once, and else gives
// unix.EWOULDBLOCK, or fs.ErrNotExist when there is none.
func tryLock(dir string, how int) (*entry, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	held, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(f.Name()); err == nil && !os.SameFile(held, there) {
			err = fs.ErrNotExist // another directory by now
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &entry{dir: dir, lock: f}, nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// path is where a file of the entry is.
func (e *entry) path(name string) string { return filepath.Join(e.dir, name) }

// touch notes that the entry is in use now.
func (e *entry) touch() error {
	now := time.Now()
	return os.Chtimes(e.lock.Name(), now, now)
}

// unlock lets others in. Not twice.
func (e *entry) unlock() error { return e.lock.Close() }

// remove removes the directory, which must be locked for removing, and unlocks it. The lock
// goes last, so that an interrupted removal can be told and repeated.
func (e *entry) remove() error {
	list, err := os.ReadDir(e.dir)
	for _, f := range list {
		if f.Name() != lockName {
			err = errors.Join(err, os.RemoveAll(e.path(f.Name())))
		}
	}
	if err == nil {
		err = os.RemoveAll(e.dir)
	}
	return errors.Join(err, e.unlock())
}

// size is how many bytes the entry takes on disk.
func size(dir string) (int64, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, f := range list {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, f.Name()), &st); err == nil {
			n += st.Blocks * 512
		}
	}
	return n, nil
}

// writeFile writes a small file under a temporary name, and gives it its own when it is
// on disk.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return newfile.SyncDir(filepath.Dir(path))
}
