package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// FollowLog reads the CRI log at path from the offset from on and calls fn for
// each line as it comes, with the offset from which a later call would go on.
// The file need not exist yet, its directory must. When the file is renamed
// away and another takes its place, the old one is read to its end and the new
// one from its beginning; offsets then refer to the new one. When ctx ends,
// what is in the file by then is read, and FollowLog returns nil. An error of fn
// is returned at once. When the directory is removed the error is ErrNotFound.
//
// A line can come twice when reading goes on at an offset where both streams
// had open lines, never not at all.
//
// Each call takes an inotify instance, of which a user has 128 by default: use
// one Follower for many files.
func FollowLog(ctx context.Context, path string, from int64, fn func(line LogLine, next int64) error) error {
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
func (f *Follower) Follow(ctx context.Context, path string, from int64, fn func(line LogLine, next int64) error) error {
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

	t := &tail{path: path, fn: fn, buf: make([]byte, 32<<10)}
	defer t.close()
	t.parser = newLogParser(from, t.line)
	for {
		if ctx.Err() != nil {
			// Bounded by what is there now: the writer may go on for ever.
			if err := t.advance(true); err != nil {
				return t.wrap(op, err)
			}
			return t.wrap(op, t.parser.finish())
		}
		if err := t.advance(false); err != nil {
			return t.wrap(op, err)
		}
		if gone() {
			return &Error{Op: op, Kind: ErrNotFound, text: "its directory was removed"}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-f.done:
			return &Error{Op: op, Kind: ErrClosed, text: "the follower was closed"}
		}
	}
}

// tail is the reading end of one followed log.
type tail struct {
	path   string
	fn     func(LogLine, int64) error
	parser *logParser
	file   *os.File
	buf    []byte

	// old is the file before the last rotation. The runtime may still be
	// writing into it a moment after the new one has appeared.
	old       *os.File
	oldParser *logParser

	failed error // what fn returned
}

func (t *tail) line(l LogLine, next int64) error {
	t.failed = t.fn(l, next)
	return t.failed
}

// wrap leaves errors of fn as they are.
func (t *tail) wrap(op string, err error) error {
	if err == nil || t.failed != nil {
		return err
	}
	return &Error{Op: op, Cause: err}
}

func (t *tail) close() {
	if t.file != nil {
		t.file.Close()
	}
	if t.old != nil {
		t.old.Close()
	}
}

// advance reads what is new, through any rotation that has happened.
func (t *tail) advance(last bool) error {
	for {
		if t.old != nil {
			if err := t.drain(t.old, t.oldParser, last); err != nil {
				return err
			}
			if deleted, err := isDeleted(t.old); err != nil {
				return err
			} else if deleted {
				if err := t.oldParser.finish(); err != nil {
					return err
				}
				t.old.Close()
				t.old, t.oldParser = nil, nil
			}
		}
		if t.file == nil {
			if err := t.openFile(); err != nil || t.file == nil {
				return err
			}
		}
		if err := t.drain(t.file, t.parser, last); err != nil {
			return err
		}
		rotated, deleted, err := t.rotated()
		if err == nil && deleted {
			// An open file would keep its directory alive, and the news of
			// the directory's removal from coming.
			err = t.drain(t.file, t.parser, last)
			t.file.Close()
			t.file = nil
			t.parser.rewind()
			rotated = false
		}
		if err != nil || !rotated {
			if last && t.oldParser != nil && err == nil {
				err = t.oldParser.finish()
			}
			return err
		}
		// Once more: the rotation may have come after the read above.
		if err := t.drain(t.file, t.parser, last); err != nil {
			return err
		}
		if err := t.switchFile(); err != nil {
			return err
		}
	}
}

// openFile opens the log if it exists. The log's directory belongs to the node,
// but a link in it would still be a surprise.
func (t *tail) openFile() error {
	f, err := os.OpenFile(t.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", t.path)
	}
	if err != nil {
		f.Close()
		return err
	}
	if fi.Size() < t.parser.off {
		// An offset of another file, or one that was cut.
		t.parser.rewind()
	}
	t.file = f
	return nil
}

// rotated says whether another file has taken the log's place, or none has and
// the log was deleted.
func (t *tail) rotated() (another, deleted bool, err error) {
	now, err := os.Lstat(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		deleted, err = isDeleted(t.file)
		return false, deleted, err
	}
	if err != nil {
		return false, false, err
	}
	mine, err := t.file.Stat()
	if err != nil {
		return false, false, err
	}
	return !os.SameFile(now, mine), false, nil
}

// isDeleted says whether an open file has no name any more.
func isDeleted(f *os.File) (bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	sys, ok := fi.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0, nil
}

// switchFile goes over to the file that has taken the log's place. A line that
// is open in the old one goes on in the new one.
func (t *tail) switchFile() error {
	if t.old != nil {
		if err := t.oldParser.finish(); err != nil {
			return err
		}
		t.old.Close()
	}
	late := newLogParser(0, func(l LogLine, _ int64) error { return t.line(l, t.parser.next(t.parser.off)) })
	late.record, late.off, late.inside, late.head = t.parser.record, t.parser.off, t.parser.inside, t.parser.head
	t.old, t.oldParser, t.file = t.file, late, nil
	t.parser.record, t.parser.inside = nil, false
	t.parser.rewind()
	return nil
}

// rewind makes the parser expect the beginning of a file.
func (p *logParser) rewind() {
	p.record, p.inside = p.record[:0], false
	p.off, p.start = 0, 0
	for i := range p.open {
		p.open[i].start = 0
	}
}

// drain reads f to its end, or, for the last time, to the end that it has now.
func (t *tail) drain(f *os.File, p *logParser, last bool) error {
	at := p.off + int64(len(p.record))
	limit := int64(-1)
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < at {
		p.rewind() // cut by somebody
		at = 0
	}
	if last {
		limit = fi.Size()
	}
	for {
		buf := t.buf
		if limit >= 0 {
			buf = buf[:max(0, min(int64(len(buf)), limit-at))]
			if len(buf) == 0 {
				return nil
			}
		}
		n, err := f.ReadAt(buf, at)
		at += int64(n)
		if perr := p.write(buf[:n]); perr != nil {
			return perr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
