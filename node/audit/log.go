package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// defaultFile is how large a file grows before the next one is begun, in bytes.
const defaultFile = 64 << 20

// Options of a log. The zero value has the defaults.
type Options struct {
	// Node is written into each entry.
	Node string
	// FileBytes is how large a file grows before the next one is begun.
	// Default: 64 MiB.
	FileBytes int64
}

// ErrBroken: an earlier failure has left the log in a state in which nothing
// can be appended.
var ErrBroken = errors.New("the audit log cannot be written to any more")

// Log appends to a chain. It is safe for concurrent use: entries that come at
// the same time share one write to the disk.
type Log struct {
	dir string
	o   Options

	mu     sync.Mutex // the order of entries, and what follows
	file   *os.File
	size   int64 // of file, in whole lines
	last   Head
	broken error

	sync    sync.Mutex // held while the disk is written to; taken before mu
	head    *os.File
	synced  uint64
	retired []*os.File // full files, by mu; flush closes them, since it may be using them
}

// Open opens the chain in dir, which it makes if need be, for one process at a
// time. A line that a crash has cut is taken off. A chain that is damaged is
// continued all the same, from its last line on, and damage says where: nothing
// may stop the record of what comes, and Verify goes on naming the place.
func Open(dir string, o Options) (_ *Log, damage, err error) {
	if o.FileBytes <= 0 {
		o.FileBytes = defaultFile
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the audit directory: %w", err)
	}
	l := &Log{dir: dir, o: o}
	if l.head, err = os.OpenFile(filepath.Join(dir, headName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := unix.Flock(int(l.head.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, fmt.Errorf("open the audit log in %s: another process writes to it: %w", dir, err)
	}
	if _, damage = Verify(dir, nil); damage != nil && !IsDamage(damage) {
		return nil, nil, damage
	}
	cut, err := l.resume()
	if err == nil && cut > 0 {
		err = l.Append(Entry{Event: Recovered, Reason: fmt.Sprintf("a crash had cut the last line; its %d bytes were taken off", cut)})
	}
	if err == nil && damage != nil {
		err = l.Append(Entry{Event: Damaged, Reason: damage.Error()})
	}
	if err != nil {
		return nil, nil, err
	}
	return l, damage, nil
}

// resume finds the end of the chain and takes off what a crash left of a line.
func (l *Log) resume() (cut int64, err error) {
	names, err := files(l.dir)
	if err != nil {
		return 0, err
	}
	if len(names) == 0 {
		l.last.Hash = first
		return 0, l.begin()
	}
	// A crash right after a new file was begun leaves it empty.
	for _, name := range names[max(0, len(names)-2):] {
		l.size, err = eachOf(l.dir, name, 0, func(line *Line) error {
			if !line.Whole {
				return nil
			}
			l.last.Hash = hashOf(line.Raw)
			if e, err := line.Entry(); err == nil {
				l.last.Seq = e.Seq
			} else {
				l.last.Seq++ // damaged, but a line all the same
			}
			return nil
		})
		if IsDamage(err) {
			// Nothing is taken off what cannot be read: it is evidence.
			l.last.Seq++
			return 0, l.begin()
		}
		if err != nil {
			return 0, err
		}
	}
	if l.last.Hash == "" {
		l.last.Hash = first
	}
	if l.file, err = os.OpenFile(filepath.Join(l.dir, names[len(names)-1]), os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return 0, fmt.Errorf("open the audit log: %w", err)
	}
	info, err := l.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("open the audit log: %w", err)
	}
	if cut = info.Size() - l.size; cut > 0 {
		if err := l.file.Truncate(l.size); err != nil {
			return 0, fmt.Errorf("take a cut line off the audit log: %w", err)
		}
	}
	return cut, nil
}

// Head is the last entry.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Append adds an entry; its number, time if it has none, node and predecessor
// are filled in. When it returns without an error the entry is on the disk.
func (l *Log) Append(e Entry) error {
	seq, err := l.write(e)
	if err == nil {
		err = l.flush(seq)
	}
	if err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	return nil
}

func (l *Log) write(e Entry) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, l.broken
	}
	if l.size >= l.o.FileBytes {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	e.Seq, e.Prev, e.Node = l.last.Seq+1, l.last.Hash, l.o.Node
	line, err := e.line()
	if err != nil {
		return 0, err
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		// What was written of the line must go, or the next one joins it.
		if undo := l.file.Truncate(l.size); undo != nil {
			l.broken = fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, undo))
		}
		return 0, err
	}
	l.size += int64(len(line)) + 1
	l.last = Head{e.Seq, hashOf(line)}
	return e.Seq, nil
}

// flush returns when the entry is on the disk, and head says so.
func (l *Log) flush(seq uint64) error {
	l.sync.Lock()
	defer l.sync.Unlock()
	if l.synced >= seq {
		return nil // another call has taken it along
	}
	l.mu.Lock()
	file, last, broken, retired := l.file, l.last, l.broken, l.retired
	l.retired = nil
	l.mu.Unlock()
	for _, f := range retired {
		_ = f.Close() // synced when it was full
	}
	if broken != nil {
		return broken
	}
	if err := unix.Fdatasync(int(file.Fd())); err != nil {
		return l.fail(err)
	}
	if _, err := l.head.WriteAt(last.record(), 0); err != nil {
		return err // head stays behind: that is no damage
	}
	if err := unix.Fdatasync(int(l.head.Fd())); err != nil {
		return l.fail(err)
	}
	l.synced = last.Seq
	return nil
}

// fail gives the log up: what a disk has of a failed sync is not known.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = fmt.Errorf("%w: %w: start the node again when the disk is well", ErrBroken, err)
	}
	return l.broken
}

// rotate begins the next file. The one before it is on the disk by then, so
// that flush has only one to look after.
func (l *Log) rotate() error {
	if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
		l.broken = fmt.Errorf("%w: %w", ErrBroken, err)
		return l.broken
	}
	old := l.file
	if err := l.begin(); err != nil {
		return err
	}
	l.retired = append(l.retired, old)
	return nil
}

func (l *Log) begin() error {
	f, err := os.OpenFile(filepath.Join(l.dir, fileName(l.last.Seq+1)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	// An empty one was begun by a call that then failed.
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		return errors.Join(fmt.Errorf("the file %s is in the way", f.Name()), err, f.Close())
	}
	d, err := os.Open(l.dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, 0
	return nil
}

// Close releases the log. No Append may be under way.
func (l *Log) Close() error {
	var errs []error
	for _, f := range append(l.retired, l.file, l.head) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
