package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FollowLog reads the CRI log at path from a place on and calls fn for each line
// as it comes, with the place from which a later call would go on. The file need
// not exist yet, its directory must. A log that a Rotator rotates is read through
// all its files, in their order; a line that the runtime cut at a rotation is
// joined again. A place whose text a Rotator has taken away is told once by a
// LogLine with Gap. When ctx ends, what is there by then is read, and FollowLog
// returns nil. An error of fn is returned at once. When the directory is removed
// the error is ErrNotFound.
//
// Going on at a place neither loses nor repeats a line; of a record of more than
// MaxLogText bytes, which no known runtime writes, a piece may come again.
//
// Each call takes an inotify instance, of which a user has 128 by default: use
// one Follower for many files.
func FollowLog(ctx context.Context, path string, from LogPos, fn func(line LogLine, next LogPos) error) error {
	f, err := NewFollower()
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Follow(ctx, path, from, fn)
}

// Follower follows any number of log files with one inotify instance. It is
// safe for concurrent use.
type Follower struct {
	inotify *os.File
	done    chan struct{} // closed when no more events come

	mu   sync.Mutex
	dirs map[uint32]*watchedDir // by watch descriptor
}

// watchedDir has one watch, however many files in it are followed.
type watchedDir struct {
	subs map[chan struct{}]struct{}
	gone bool
}

// NewFollower makes a follower. Its owner closes it.
func NewFollower() (*Follower, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		e := &Error{Op: "follow log files", Cause: err}
		if errors.Is(err, unix.EMFILE) {
			e.text = "this user has too many inotify instances; raise the sysctl fs.inotify.max_user_instances"
		}
		return nil, e
	}
	f := &Follower{
		inotify: os.NewFile(uintptr(fd), "inotify"),
		done:    make(chan struct{}),
		dirs:    map[uint32]*watchedDir{},
	}
	go f.run()
	return f, nil
}

// Close ends all calls of Follow with ErrClosed.
func (f *Follower) Close() error {
	err := f.inotify.Close()
	<-f.done
	return err
}

// run reads events until Close and wakes those who follow files in the
// directory concerned. Which file it was does not matter: a log directory has a
// handful, and a renamed file is written on under its new name.
func (f *Follower) run() {
	defer close(f.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := f.inotify.Read(buf)
		if err != nil {
			return
		}
		f.mu.Lock()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := binary.NativeEndian.Uint32(b[0:])
			mask := binary.NativeEndian.Uint32(b[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if size > len(b) {
				break
			}
			b = b[size:]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				for _, d := range f.dirs {
					d.wake()
				}
				continue
			}
			d := f.dirs[wd]
			if d == nil {
				continue
			}
			if mask&unix.IN_IGNORED != 0 {
				// The kernel dropped the watch: the directory is gone, or the
				// last one left.
				d.gone = true
				delete(f.dirs, wd)
			}
			d.wake()
		}
		f.mu.Unlock()
	}
}

func (d *watchedDir) wake() {
	for c := range d.subs {
		signal(c)
	}
}

const watchedEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
	unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_ONLYDIR

// watch wakes c at changes in dir until the returned function is called; gone
// says whether the directory was removed.
func (f *Follower) watch(dir string, c chan struct{}) (gone func() bool, stop func(), err error) {
	// Under the lock, so that no event of this watch is handled before it is
	// known here.
	f.mu.Lock()
	defer f.mu.Unlock()
	var wd int
	raw, err := f.inotify.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var addErr error
	if err := raw.Control(func(fd uintptr) { wd, addErr = unix.InotifyAddWatch(int(fd), dir, watchedEvents) }); err != nil {
		return nil, nil, ErrClosed
	}
	if addErr != nil {
		return nil, nil, &fs.PathError{Op: "watch", Path: dir, Err: addErr}
	}
	d := f.dirs[uint32(wd)]
	if d == nil {
		d = &watchedDir{subs: map[chan struct{}]struct{}{}}
		f.dirs[uint32(wd)] = d
	}
	d.subs[c] = struct{}{}
	gone = func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return d.gone
	}
	stop = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(d.subs, c)
		if len(d.subs) > 0 || d.gone {
			return
		}
		// Watch descriptors are not used again, so a late IN_IGNORED finds
		// nothing.
		delete(f.dirs, uint32(wd))
		raw.Control(func(fd uintptr) { unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
	return gone, stop, nil
}

// Follow is FollowLog with this follower's inotify instance.
func (f *Follower) Follow(ctx context.Context, path string, from LogPos, fn func(line LogLine, next LogPos) error) error {
	op := "follow the log " + path
	changed := make(chan struct{}, 1)
	gone, stop, err := f.watch(filepath.Dir(path), changed)
	if err != nil {
		e := &Error{Op: op, Cause: err}
		if errors.Is(err, fs.ErrNotExist) {
			e.Kind = ErrNotFound
		}
		if errors.Is(err, unix.ENOSPC) {
			e.text = "this user has too many inotify watches; raise the sysctl fs.inotify.max_user_watches"
		}
		return e
	}
	defer stop()

	t := newTail(path, from, fn)
	defer t.close()
	soon := time.NewTimer(0)
	soon.Stop()
	defer soon.Stop()
	for {
		if ctx.Err() != nil {
			// Bounded by what is there now: the writer may go on for ever.
			return t.wrap(op, t.finish())
		}
		again, err := t.advance()
		if err != nil {
			return t.wrap(op, err)
		}
		if gone() {
			return &Error{Op: op, Kind: ErrNotFound, text: "its directory was removed"}
		}
		if again {
			soon.Reset(settlePoll)
		}
		select {
		case <-changed:
		case <-soon.C:
		case <-ctx.Done():
		case <-f.done:
			return &Error{Op: op, Kind: ErrClosed, text: "the follower was closed"}
		}
	}
}
