package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/newfile"
)

const (
	// defaultFile is how large a file grows before the next one is begun, in bytes.
	defaultFile = 64 << 20
	// tailBytes is how much of the end of a file Open reads, so that a start takes
	// no longer when much is on record.
	tailBytes = 1 << 20
)

// Options of a log. The zero value has the defaults.
type Options struct {
	// Node is written into each entry.
	Node string
	// FileBytes is how large a file grows before the next one is begun.
	// Default: 64 MiB.
	FileBytes int64
}

// Log appends to a chain. It is safe for concurrent use: entries that come at
// the same time share one write to the disk. A disk that fails and then works
// again is no reason to open the log anew.
type Log struct {
	dir string
	o   Options
	// opened is what head named before this log wrote to it, damaged whether Open
	// has found damage.
	opened  Head
	damaged bool

	mu   sync.Mutex // the order of entries, and what follows
	file *os.File
	size int64 // of file, in whole lines
	last Head
	// safe is up to where file is certainly on the disk. When that fails, what came
	// after it is taken back, and every Append of it has failed: what a disk has of
	// a failed sync is not known.
	safe struct {
		size int64
		last Head
	}
	taken uint64 // how often something was taken back
	why   error  // of the last time
	torn  bool   // file is longer than size

	sync    sync.Mutex // held while the disk is written to; taken before mu
	head    *os.File
	synced  uint64
	retired []*os.File // full files, by mu; flush closes them, since it may be using them
}

// Open opens the chain in dir, which it makes if need be, for one process at a
// time. A line that a crash has cut is taken off. A chain that is damaged is
// continued all the same, from its last line on, and damage says where: nothing
// may stop the record of what comes, and Verify goes on naming the place. Only the
// end of the chain is looked at, and that it is what head says; Examine does the
// rest.
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
	if damage = l.checkEnd(); damage != nil && !IsDamage(damage) {
		return nil, nil, damage
	}
	l.damaged = damage != nil
	cut, err := l.resume()
	if err == nil && cut > 0 {
		err = l.Append(Entry{Event: Recovered, Reason: fmt.Sprintf("a crash had cut the last line; its %d bytes were taken off", cut)})
	}
	if err == nil && damage != nil {
		err = l.record(damage)
	}
	if err != nil {
		return nil, nil, err
	}
	return l, damage, nil
}

func (l *Log) record(damage error) error {
	return l.Append(Entry{Event: Damaged, Reason: damage.Error()})
}

// Examine reads the whole chain, as Open does not, and takes its time. Damage is
// put on record and returned; it does not look for more than Open has found. It
// may be called while others append.
func (l *Log) Examine(ctx context.Context) (damage, err error) {
	if l.damaged {
		return nil, nil
	}
	var known *Head
	if l.opened != (Head{}) {
		known = &l.opened
	}
	if _, err = verify(ctx, l.dir, known); !IsDamage(err) {
		return nil, err
	}
	return err, l.record(err)
}

// ends are the last two files, because a crash right after a new one was begun
// leaves it empty, and from where on each of them is looked at.
func (l *Log) ends() (names []string, from map[string]int64, err error) {
	if names, err = files(l.dir); err != nil {
		return nil, nil, err
	}
	names = names[max(0, len(names)-2):]
	from = make(map[string]int64, len(names))
	for _, name := range names {
		if from[name], err = tailOf(l.dir, name); err != nil {
			return nil, nil, err
		}
	}
	return names, from, nil
}

// checkEnd returns the *Damage that the end of the chain shows.
func (l *Log) checkEnd() error {
	head, err := readHead(l.dir)
	if err != nil {
		return err
	}
	l.opened = head
	names, from, err := l.ends()
	if err != nil {
		return err
	}
	c := checker{head: head}
	for _, name := range names {
		if from[name] > 0 {
			c = checker{head: head}
		}
		c.fileBegins = from[name] == 0
		if _, err := eachOf(l.dir, name, from[name], c.line); err != nil {
			return atLine(err, l.dir, from)
		}
	}
	return atLine(c.end(), l.dir, from)
}

// resume finds the end of the chain and takes off what a crash left of a line.
func (l *Log) resume() (cut int64, err error) {
	names, from, err := l.ends()
	if err != nil {
		return 0, err
	}
	if len(names) == 0 {
		l.last.Hash = first
		return 0, l.begin()
	}
	for _, name := range names {
		l.size, err = eachOf(l.dir, name, from[name], func(line *Line) error {
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
	l.secure()
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
	seq, taken, err := l.write(e)
	if err == nil {
		err = l.flush(seq, taken)
	}
	if err != nil {
		return fmt.Errorf("write to the audit log: %w", err)
	}
	return nil
}

// write returns the entry's number, and what l.taken is as long as the entry is
// not taken back.
func (l *Log) write(e Entry) (seq, taken uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.mend(); err != nil {
		return 0, 0, err
	}
	if l.size >= l.o.FileBytes {
		if err := l.rotate(); err != nil {
			return 0, 0, err
		}
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	e.Seq, e.Prev, e.Node = l.last.Seq+1, l.last.Hash, l.o.Node
	line, err := e.line()
	if err != nil {
		return 0, 0, err
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		// What was written of the line must go, or the next one joins it.
		l.torn = true
		return 0, 0, errors.Join(err, l.mend())
	}
	l.size += int64(len(line)) + 1
	l.last = Head{e.Seq, hashOf(line)}
	return e.Seq, l.taken, nil
}

// mend takes off the file what does not belong to it.
func (l *Log) mend() error {
	if !l.torn {
		return nil
	}
	if err := l.file.Truncate(l.size); err != nil {
		return fmt.Errorf("take back what could not be written: %w", err)
	}
	l.torn = false
	return nil
}

// secure notes that all of the file is on the disk.
func (l *Log) secure() { l.safe.size, l.safe.last = l.size, l.last }

// takeBack goes back to what is certainly on the disk.
func (l *Log) takeBack(why error) error {
	l.size, l.last = l.safe.size, l.safe.last
	l.torn, l.why = true, why
	l.taken++
	return errors.Join(why, l.mend())
}

// flush returns when the entry is on the disk, and head says so.
func (l *Log) flush(seq, taken uint64) error {
	l.sync.Lock()
	defer l.sync.Unlock()
	l.mu.Lock()
	file, size, last, retired := l.file, l.size, l.last, l.retired
	l.retired = nil
	gone := l.taken != taken
	why := l.why
	l.mu.Unlock()
	for _, f := range retired {
		_ = f.Close() // synced when it was full
	}
	if gone {
		return why
	}
	if l.synced >= seq {
		return nil // another call has taken it along
	}
	if err := l.settle(file, size, last, taken); err != nil {
		return err
	}
	if _, err := l.head.WriteAt(last.record(), 0); err != nil {
		return err // head stays behind: that is no damage
	}
	if err := unix.Fdatasync(int(l.head.Fd())); err != nil {
		return err // as above
	}
	l.synced = last.Seq
	return nil
}

// settle writes a file to the disk.
func (l *Log) settle(file *os.File, size int64, last Head, taken uint64) error {
	err := unix.Fdatasync(int(file.Fd()))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.taken != taken:
		return l.why
	case l.file != file:
		return err // it was full, and what is in the next one stays
	case err != nil:
		return l.takeBack(err)
	}
	l.safe.size, l.safe.last = size, last
	return nil
}

// rotate begins the next file. The one before it is on the disk by then, so
// that flush has only one to look after.
func (l *Log) rotate() error {
	if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
		return l.takeBack(err)
	}
	l.secure()
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
	if err := newfile.SyncDir(l.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, 0
	l.secure()
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
