package runtime

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// When a file counts as written to its end, though the runtime may still have it
// open: containerd writes what it had read of the algorithm's output into the
// old file after it has begun the new one.
const (
	settleMax  = 2 * time.Second
	settlePoll = 5 * time.Millisecond
)

// ReadLogFiles reads a log as it is now, through all its files, from a place on,
// and returns the place where a later call or Follow goes on. Lines without an
// end are left to it. A log that does not exist is empty.
func ReadLogFiles(path string, from LogPos, fn func(line LogLine, next LogPos) error) (LogPos, error) {
	t := newTail(path, from, fn)
	defer t.close()
	err := t.wrap("read the log "+path, t.catchUp())
	return t.parser.next(t.parser.off), err
}

// ReadWholeLog reads a log as it is now, from its beginning to its end.
func ReadWholeLog(path string, fn func(LogLine) error) error {
	t := newTail(path, LogPos{}, func(l LogLine, _ LogPos) error { return fn(l) })
	defer t.close()
	return t.wrap("read the log "+path, t.finish())
}

// SettleLog waits until the runtime has written all that an ended container has
// left in its pipes: a runtime may report the end earlier. It returns when
// nobody has the log open for writing any more, when ctx ends, or, where that
// cannot be asked, when the log has not changed for a moment.
func SettleLog(ctx context.Context, path string) {
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for {
		f, err := openLogFile(path)
		if f == nil || err != nil {
			return
		}
		some, known := writers(f)
		info, err := f.Stat()
		if errors.Join(err, f.Close()) != nil || known && !some {
			return
		}
		if !known && time.Since(info.ModTime()) > 20*settlePoll {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tail is the reading end of one log.
type tail struct {
	files  logFiles
	fn     func(LogLine, LogPos) error
	parser *logParser
	file   *openedLog
	buf    []byte
	// left is set when the current file was first seen to have a successor.
	left   time.Time
	inHead bool  // the kept beginning was read last
	failed error // what fn returned
}

func newTail(path string, from LogPos, fn func(LogLine, LogPos) error) *tail {
	t := &tail{files: logFiles{path}, fn: fn, buf: make([]byte, 32<<10)}
	t.parser = newLogParser(from, t.line)
	return t
}

func (t *tail) line(l LogLine, next LogPos) error {
	t.failed = t.fn(l, next)
	return t.failed
}

// wrap leaves errors of fn as they are.
func (t *tail) wrap(op string, err error) error {
	if t.failed != nil {
		return t.failed
	}
	if err == nil {
		return nil
	}
	return &Error{Op: op, Cause: err}
}

func (t *tail) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

// finish reads what is there now and hands on lines without an end.
func (t *tail) finish() error {
	if err := t.catchUp(); err != nil {
		return err
	}
	return t.parser.finish()
}

// catchUp reads what is there now.
func (t *tail) catchUp() error {
	end, err := t.end()
	for waited := time.Duration(0); err == nil && t.parser.place().Before(end) && waited <= 2*settleMax; waited += settlePoll {
		var again bool
		if again, err = t.forward(&end); err != nil || !again {
			return err
		}
		time.Sleep(settlePoll) // for the last of a file that was just rotated away
	}
	return err
}

// end is where the log ends now.
func (t *tail) end() (LogOffset, error) {
	number, err := t.files.current()
	if errors.Is(err, fs.ErrNotExist) {
		return LogOffset{}, nil
	}
	if err != nil {
		return LogOffset{}, err
	}
	at := LogOffset{File: number}
	f, err := t.files.open(at)
	if f == nil || err != nil {
		return at, err
	}
	info, err := f.Stat()
	if err == nil {
		at = LogOffset{File: f.at.File, Byte: info.Size()}
	}
	return at, errors.Join(err, f.Close())
}

// advance reads what is new, through any rotations that have happened. again
// asks to be called once more soon, even if nothing changes.
func (t *tail) advance() (again bool, err error) { return t.forward(nil) }

// forward reads up to a place, if one is given.
func (t *tail) forward(end *LogOffset) (again bool, err error) {
	for {
		if t.file == nil {
			if err := t.enter(); err != nil || t.file == nil {
				return false, err
			}
		}
		if err := t.drain(end); err != nil {
			return false, err
		}
		if end != nil && !t.parser.place().Before(*end) {
			return false, nil
		}
		if t.file.head {
			t.close()
			t.inHead = true
			continue
		}
		moved, err := t.files.moved(t.file.at.File)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if !moved {
			deleted, err := isDeleted(t.file.File)
			if err == nil && deleted {
				// An open file would keep its directory alive, and the news of
				// the directory's removal from coming.
				err = t.drain(end)
				t.close()
				t.parser.rewind()
			}
			return false, err
		}
		if over, err := t.settled(); err != nil || !over {
			return err == nil, err
		}
		// Once more: the last of it may have come after the read above.
		if err := t.drain(end); err != nil {
			return false, err
		}
		next := t.file.at.File + 1
		t.close()
		t.left = time.Time{}
		if err := t.parser.nextFile(next); err != nil {
			return false, err
		}
	}
}

// settled tells whether a file that was rotated away is written to its end.
func (t *tail) settled() (bool, error) {
	if some, known := writers(t.file.File); known && !some {
		return true, nil
	}
	next := t.file.at.File + 1
	successor, err := present(t.files.path)
	if err == nil && !successor {
		successor, err = t.files.moved(next)
	}
	if err != nil || !successor {
		// The runtime has not been told yet, and goes on writing here.
		return false, err
	}
	if t.left.IsZero() {
		t.left = time.Now()
	}
	return time.Since(t.left) > settleMax, nil
}

// enter opens the log at the parser's place, or after the gap that is there.
func (t *tail) enter() error {
	o, err := t.files.open(t.parser.place())
	if o == nil || err != nil {
		return err
	}
	if o.gap {
		if err := t.gap(o); err != nil {
			return errors.Join(err, o.Close())
		}
	}
	t.inHead = false
	t.parser.file = o.at.File
	info, err := o.Stat()
	if err != nil {
		return errors.Join(err, o.Close())
	}
	t.file = o
	if moved, err := t.files.moved(o.at.File); err != nil || moved || o.head || info.Size() >= t.parser.off {
		return err
	}
	t.parser.rewind() // an offset of another file, or one that was cut
	return nil
}

// gap ends what comes before a gap, tells it, and goes behind it.
func (t *tail) gap(o *openedLog) error {
	if err := t.parser.finish(); err != nil {
		return err
	}
	t.parser.file, t.parser.off, t.parser.start = o.at.File, o.at.Byte, o.at.Byte
	told := LogLine{Gap: true, Time: o.cut.Until}
	if t.inHead {
		told.Dropped = o.cut.Bytes
	}
	return t.line(told, t.parser.next(t.parser.off))
}

// place is where the parser reads next.
func (p *logParser) place() LogOffset { return p.at(p.off + int64(len(p.record))) }

// drain reads the file to its end, or to the given place.
func (t *tail) drain(end *LogOffset) error {
	p, f := t.parser, t.file
	at := p.place().Byte
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size()+f.base < at {
		moved, err := t.files.moved(f.at.File)
		if err != nil || moved || f.head {
			return err // a place beyond the end of what is left
		}
		p.rewind() // cut by somebody
		at = 0
	}
	for {
		buf := t.buf
		if end != nil && end.File == f.at.File {
			buf = buf[:max(0, min(int64(len(buf)), end.Byte-at))]
		}
		if len(buf) == 0 {
			return nil
		}
		n, err := f.ReadAt(buf, at-f.base)
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

// isDeleted says whether an open file has no name any more.
func isDeleted(f *os.File) (bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	sys, ok := fi.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0, nil
}
