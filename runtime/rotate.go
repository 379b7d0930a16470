package runtime

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLogFull means that a container's log cannot be kept within its size,
// because the runtime does not begin another file.
var ErrLogFull = errors.New("the log cannot be rotated and has grown too large")

// RotatorOptions say how a log is kept small.
type RotatorOptions struct {
	// Reopen makes the runtime write to a new file at the log's path
	// (Client.ReopenLog).
	Reopen func(context.Context) error
	// Head is how many bytes of text from the beginning are kept, if they fit
	// into a quarter of the size.
	Head int64
}

// Rotator keeps the log of one running container within a size: the beginning
// and the end stay, what is between them is taken away and counted. There is one
// for a log at a time; readers need not know it. Not for concurrent use.
type Rotator struct {
	files logFiles
	o     RotatorOptions

	tidied  bool
	rotated time.Time // when a rotation was last tried
	retry   time.Time // when a rotation that failed is tried again
	failed  error     // why it failed
	size    int64     // of the current file at the last look
	looked  time.Time
	perTick float64 // bytes a second that the log grew at most lately
}

// NewRotator makes the rotator of the log at path.
func NewRotator(path string, o RotatorOptions) *Rotator {
	return &Rotator{files: logFiles{path}, o: o}
}

// How often a log is looked at: as often as its growth needs.
const (
	rotateSeldom = 250 * time.Millisecond
	rotateOften  = 10 * time.Millisecond
	rotateRetry  = time.Second
)

// Keep rotates the log if its current file has a quarter of the limit and takes
// away what is over. It returns when it wants to be called again. Between two
// calls the log may grow beyond the limit by what the container writes
// meanwhile. ErrLogFull is final; every other error has been dealt with as far
// as possible, and the next call tries again.
func (r *Rotator) Keep(ctx context.Context, limit int64) (time.Duration, error) {
	next, err := r.keep(ctx, limit)
	if err != nil {
		err = &Error{Op: "keep the log " + r.files.path + " small", Cause: err}
	}
	return next, err
}

func (r *Rotator) keep(ctx context.Context, limit int64) (time.Duration, error) {
	if !r.tidied {
		if err := r.tidy(); err != nil {
			return rotateRetry, err
		}
		r.tidied = true
	}
	part := max(limit/4, 1)
	size, err := r.currentSize()
	if err != nil {
		return rotateRetry, err
	}
	var rotateErr error
	if size < 0 || size >= part {
		rotateErr = r.rotate(ctx, size)
	}
	later, err := r.trim(limit)
	if err != nil {
		return rotateRetry, errors.Join(rotateErr, err)
	}
	if r.failed != nil {
		total, err := r.total()
		if err != nil {
			return rotateRetry, err
		}
		// Nobody writes to the log of a container that has ended.
		if total > limit && !errors.Is(r.failed, ErrNotFound) {
			return rotateRetry, fmt.Errorf("%w: %w", ErrLogFull, r.failed)
		}
	}
	if pause := r.pause(part); !later {
		return pause, rotateErr
	}
	return rotateOften, rotateErr
}

// currentSize is that of the file that the runtime writes, -1 when an
// interrupted rotation has left none, and 0 when there is no log yet.
func (r *Rotator) currentSize() (int64, error) {
	fi, err := os.Lstat(r.files.path)
	if err == nil {
		return fi.Size(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	number, err := r.files.current()
	if err != nil || number == 1 {
		return 0, err
	}
	return -1, nil
}

// pause is how long the current file needs to fill, as fast as it grew lately.
func (r *Rotator) pause(part int64) time.Duration {
	fi, err := os.Lstat(r.files.path)
	if err != nil {
		return rotateSeldom
	}
	now, size := time.Now(), fi.Size()
	grown := size - r.size
	if grown < 0 {
		grown = size // another file
	}
	if passed := now.Sub(r.looked); !r.looked.IsZero() && passed > 0 {
		r.perTick = max(float64(grown)/passed.Seconds(), r.perTick/2)
	}
	r.size, r.looked = size, now
	if r.perTick < 1 {
		return rotateSeldom
	}
	fill := time.Duration(float64(max(part-size, 0)) / r.perTick * float64(time.Second))
	return min(max(fill, rotateOften), rotateSeldom)
}

// rotate moves the current file aside and lets the runtime begin another. If it
// does not, the file gets its name back.
func (r *Rotator) rotate(ctx context.Context, size int64) error {
	if time.Now().Before(r.retry) {
		return nil
	}
	number, err := r.files.current()
	if err != nil {
		return err
	}
	if size < 0 {
		number-- // moved aside before, and the runtime was not told
	} else if err := os.Rename(r.files.path, r.files.rotated(number, 0)); err != nil {
		return err
	}
	err = r.o.Reopen(ctx)
	r.rotated = time.Now()
	if err == nil {
		r.failed, r.retry = nil, time.Time{}
		return nil
	}
	first := r.failed == nil
	r.failed, r.retry = err, time.Now().Add(rotateRetry)
	back := unix.Renameat2(unix.AT_FDCWD, r.files.rotated(number, 0), unix.AT_FDCWD, r.files.path, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(back, unix.EEXIST):
		// It has begun another file all the same.
		r.failed, r.retry = nil, time.Time{}
		return nil
	case errors.Is(back, unix.ENOENT):
		back = nil // it was cut: its rest has another name and stays
	}
	if !first && back == nil {
		return nil // said before
	}
	return errors.Join(fmt.Errorf("the runtime does not begin another file: %w", err), back)
}

// total is what all files of the log take.
func (r *Rotator) total() (int64, error) {
	all, err := r.files.list()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, f := range all {
		sum += f.size
	}
	for _, path := range []string{r.files.path, r.files.headPath()} {
		if fi, err := os.Lstat(path); err == nil {
			sum += fi.Size()
		}
	}
	return sum, nil
}

// tidy removes what an interrupted trim has left.
func (r *Rotator) tidy() error {
	c, err := r.files.cut()
	if err != nil {
		return err
	}
	err = os.Remove(r.files.newPath())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, r.discard(c))
}

// discard removes the files that a cut has made superfluous.
func (r *Rotator) discard(c logCut) error {
	all, err := r.files.list()
	if err != nil {
		return err
	}
	for _, f := range all {
		// One without a skip is what the rest was taken from; one with another
		// skip belongs to a cut before or to one that was not completed.
		if f.file < c.Next || f.file == c.Next && f.skip != c.Skip || f.file > c.Next && f.skip > 0 {
			err = errors.Join(err, os.Remove(r.files.rotated(f.file, f.skip)))
		}
	}
	return err
}

// trim takes the middle of the log away when the files that were rotated away
// have more than their part of the limit: a quarter for the beginning and a half
// for the end. What the runtime may still write into is left for later.
func (r *Rotator) trim(limit int64) (later bool, err error) {
	c, err := r.files.cut()
	if err != nil {
		return false, err
	}
	all, err := r.files.list()
	if err != nil {
		return false, err
	}
	slices.SortFunc(all, func(a, b logFile) int { return cmp.Compare(a.file, b.file) })
	var total int64
	for _, f := range all {
		total += f.size
	}
	room := limit / 2
	if c.Next == 0 {
		room += limit / 4
	}
	if total <= room || len(all) == 0 {
		return false, nil
	}
	last := all[len(all)-1]
	if later, err = r.busy(last); err != nil {
		return false, err
	}
	now := c
	begun := LogOffset{File: c.Next, Byte: c.Skip}
	if c.Next == 0 {
		if later && len(all) == 1 {
			return true, nil
		}
		if all[0].file != 1 {
			return false, fmt.Errorf("%s is not there", r.files.rotated(1, 0))
		}
		if now.Head, err = r.keepHead(limit / 4); err != nil {
			return false, err
		}
		begun = LogOffset{File: 1, Byte: now.Head}
		now.Next = 1
	}
	for _, f := range all {
		over := total - limit/2
		if over <= 0 || later && f == last {
			break
		}
		now.Next, now.Skip = f.file, f.skip
		from := int64(0) // in the file as it lies there
		if begun.File == f.file {
			from = max(begun.Byte-f.skip, 0)
		}
		upTo := f.size
		if over < f.size && (total-f.size < limit/4 || f == last) {
			if upTo, err = r.keepRest(f, max(over, from), &now); err != nil {
				return false, err
			}
		} else {
			now.Next, now.Skip = f.file+1, 0
		}
		text, until, err := countLog(r.files.rotated(f.file, f.skip), from, upTo)
		if err != nil {
			return false, err
		}
		now.Bytes += text
		if until.After(now.Until) {
			now.Until = until
		}
		total -= upTo
	}
	b, err := json.Marshal(now)
	if err != nil {
		return false, err
	}
	if err := r.write(r.files.cutPath(), bytes.NewReader(b)); err != nil {
		return false, err
	}
	return later, r.discard(now)
}

// busy tells whether the runtime may still write into a file that was rotated
// away: it does so for a moment.
func (r *Rotator) busy(last logFile) (bool, error) {
	if time.Since(r.rotated) > settleMax {
		return false, nil
	}
	f, err := os.Open(r.files.rotated(last.file, last.skip))
	if err != nil {
		return false, err
	}
	some, known := writers(f)
	return some || !known, f.Close()
}

// keepHead makes the file with the log's beginning and returns its length.
func (r *Rotator) keepHead(most int64) (_ int64, err error) {
	f, err := os.Open(r.files.rotated(1, 0))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var end int64
	var c textCount
	in := bufio.NewReaderSize(io.LimitReader(f, most), 64<<10)
	for c.text < r.o.Head {
		line, err := in.ReadSlice('\n')
		c.add(line)
		if err == nil {
			end = c.read
		} else if !errors.Is(err, bufio.ErrBufferFull) {
			if !errors.Is(err, io.EOF) {
				return 0, err
			}
			break
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	return end, r.write(r.files.headPath(), io.LimitReader(f, end))
}

// keepRest makes the file that a cut leaves of another one, from the first
// record that begins at over or later, and returns where that is.
func (r *Rotator) keepRest(f logFile, over int64, c *logCut) (upTo int64, err error) {
	in, err := os.Open(r.files.rotated(f.file, f.skip))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	upTo = f.size
	if over > 0 {
		if _, err := in.Seek(over-1, io.SeekStart); err != nil {
			return 0, err
		}
	}
	b := bufio.NewReaderSize(in, 64<<10)
	for read := max(over-1, 0); ; {
		line, err := b.ReadSlice('\n')
		read += int64(len(line))
		if err == nil {
			upTo = read
			break
		}
		if errors.Is(err, io.EOF) {
			upTo = read
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return 0, err
		}
	}
	if _, err := in.Seek(upTo, io.SeekStart); err != nil {
		return 0, err
	}
	c.Skip = f.skip + upTo
	return upTo, r.write(r.files.rotated(f.file, c.Skip), in)
}

// write makes a file that is there whole or not at all.
func (r *Rotator) write(path string, from io.Reader) error {
	f, err := os.OpenFile(r.files.newPath(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(r.files.newPath()))
	}
	return os.Rename(r.files.newPath(), path)
}

// countLog returns how many bytes of text a part of a log file holds, as ReadLog
// would hand them on with a newline after each line, and the time of its last
// record.
func countLog(path string, from, to int64) (int64, time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, time.Time{}, err
	}
	var c textCount
	in := bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 256<<10)
	for {
		var line []byte
		line, err = in.ReadSlice('\n')
		c.add(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	h, _ := parseLogHeader(c.stamp)
	return c.text, h.time, errors.Join(err, f.Close())
}

// textCount counts text without reading the times, which takes most of ReadLog's
// time.
type textCount struct {
	text, read int64
	inside     bool // the record's header was counted before
	full       bool // the record ends a line
	stamp      []byte
}

// add takes a record, or a piece of one.
func (c *textCount) add(piece []byte) {
	if len(piece) == 0 {
		return
	}
	c.read += int64(len(piece))
	ended := piece[len(piece)-1] == '\n'
	text := piece
	if ended {
		text = piece[:len(piece)-1]
	}
	if !c.inside {
		n, full, known := headerLength(text)
		if known {
			c.stamp = append(c.stamp[:0], text[:n]...)
		}
		c.full = full && (known || len(text) > 0)
		text = text[n:]
	}
	c.text += int64(len(text))
	if ended && c.full {
		c.text++
	}
	c.inside = !ended
}

// headerLength is how many bytes a record's header takes and whether the record
// ends a line. What has not the form of a header has none.
func headerLength(b []byte) (n int, full, known bool) {
	stamp := bytes.IndexByte(b[:min(len(b), 64)], ' ')
	if stamp < 20 || b[4] != '-' || b[10] != 'T' {
		return 0, true, false
	}
	rest := b[stamp+1:]
	if !bytes.HasPrefix(rest, []byte("stdout ")) && !bytes.HasPrefix(rest, []byte("stderr ")) {
		return 0, true, false
	}
	if full, n = parseLogTag(rest[7:]); n < 0 {
		return 0, true, false
	}
	return stamp + 1 + 7 + n, full, true
}
