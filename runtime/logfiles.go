package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// logFiles are the files of one container's log, in its directory:
//
//	NAME        what the runtime writes now
//	NAME.1 ...  what was rotated away, the oldest first; numbers are never used again
//	NAME.cut    what was taken away to keep the log small (logCut), if anything was
//	NAME.head   then: the beginning of file 1, which is kept
//	NAME.5.700  then: file 5 without its first 700 bytes
//
// Only a Rotator changes them. Readers need no lock: every step leaves a state
// that they understand, and a file that they have open stays whole.
type logFiles struct{ path string }

// logCut says what is missing: everything from (1, Head) to (Next, Skip).
type logCut struct {
	Head  int64     `json:"head"` // bytes of file 1 that are kept
	Next  int64     `json:"next"` // the file where the log goes on; 0 when nothing is missing
	Skip  int64     `json:"skip"` // bytes of it that are missing too
	Bytes int64     `json:"bytes"`
	Until time.Time `json:"until"`
}

func (c logCut) resume() LogOffset { return LogOffset{File: c.Next, Byte: c.Skip} }

func (l logFiles) cutPath() string  { return l.path + ".cut" }
func (l logFiles) headPath() string { return l.path + ".head" }
func (l logFiles) newPath() string  { return l.path + ".new" }

// rotated is the name of a file that was rotated away, without its first skip bytes.
func (l logFiles) rotated(file, skip int64) string {
	name := l.path + "." + strconv.FormatInt(file, 10)
	if skip > 0 {
		name += "." + strconv.FormatInt(skip, 10)
	}
	return name
}

// name is where a file is that was rotated away.
func (l logFiles) name(c logCut, file int64) string {
	if file == c.Next {
		return l.rotated(file, c.Skip)
	}
	return l.rotated(file, 0)
}

func (l logFiles) cut() (logCut, error) {
	var c logCut
	b, err := os.ReadFile(l.cutPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil || c.Head < 0 || c.Next < 1 || c.Skip < 0 || c.Bytes < 0 {
		return logCut{}, fmt.Errorf("%s is damaged", l.cutPath())
	}
	return c, nil
}

// logFile is one file that was rotated away.
type logFile struct {
	file, skip int64
	size       int64
}

// list returns the files that were rotated away, in no order.
func (l logFiles) list() ([]logFile, error) {
	entries, err := os.ReadDir(filepath.Dir(l.path))
	if err != nil {
		return nil, err
	}
	var out []logFile
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(l.path)+".")
		if !ok {
			continue
		}
		number, skipped, cut := strings.Cut(rest, ".")
		f := logFile{}
		if f.file, err = strconv.ParseInt(number, 10, 64); err != nil || f.file < 1 {
			continue
		}
		if cut {
			if f.skip, err = strconv.ParseInt(skipped, 10, 64); err != nil || f.skip < 1 {
				continue
			}
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.size = info.Size()
		out = append(out, f)
	}
	return out, nil
}

// current is the number of the file that the runtime writes.
func (l logFiles) current() (int64, error) {
	c, err := l.cut()
	if err != nil {
		return 0, err
	}
	all, err := l.list()
	if err != nil {
		return 0, err
	}
	last := max(c.Next-1, 0)
	for _, f := range all {
		last = max(last, f.file)
	}
	return last + 1, nil
}

// moved tells whether the file with this number is no longer the one that the
// runtime was told to write.
func (l logFiles) moved(file int64) (bool, error) {
	c, err := l.cut()
	if err != nil {
		return false, err
	}
	if file < c.Next {
		return true, nil
	}
	return present(l.name(c, file))
}

func present(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openedLog is a file of a log, open at a place.
type openedLog struct {
	*os.File
	at   LogOffset // where it was opened: what was asked for, or the end of the gap there
	base int64     // offset of the file's first byte
	head bool      // it is the kept beginning, after which there is a gap
	gap  bool      // what was asked for is missing
	cut  logCut
}

// open opens the log at a place. Without an error and a file, there is none yet.
func (l logFiles) open(at LogOffset) (*openedLog, error) {
	if at.File == 0 {
		at = LogOffset{File: 1}
	}
	for {
		c, err := l.cut()
		if err != nil {
			return nil, err
		}
		o := &openedLog{at: at, cut: c}
		name := ""
		switch {
		case c.Next == 0 || !at.Before(c.resume()):
		case at.File == 1 && at.Byte < c.Head:
			o.head = true
			name = l.headPath()
		default:
			o.gap, o.at = true, c.resume()
		}
		if !o.head {
			name = l.name(c, o.at.File)
			if o.at.File == c.Next {
				o.base = c.Skip
			}
		}
		again := false
		o.File, err = openLogFile(name)
		if err == nil && o.File == nil {
			if o.File, err = openLogFile(l.path); err == nil {
				// A rotation may have come in between.
				again, err = present(name)
			}
		}
		if err == nil && !again {
			var now logCut
			now, err = l.cut()
			again = now != c
		}
		if err == nil && !again && o.File != nil {
			return o, nil
		}
		if o.File != nil {
			err = errors.Join(err, o.Close())
		}
		if err != nil || !again {
			return nil, err
		}
	}
}

// openLogFile opens a file of a log; one that does not exist is nil. The
// directory belongs to the node, but a link in it would still be a surprise.
func openLogFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// writers tells whether a process has the file open for writing: the kernel
// gives a read lease (fcntl(2), F_SETLEASE) only when none has. known is false
// where the file system or the file's owner does not allow to ask.
func writers(f *os.File) (some, known bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, false
	}
	var leaseErr error
	err = raw.Control(func(fd uintptr) {
		if _, leaseErr = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK); leaseErr == nil {
			_, leaseErr = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
		}
	})
	switch {
	case err != nil:
		return false, false
	case errors.Is(leaseErr, unix.EAGAIN):
		return true, true
	}
	return false, leaseErr == nil
}
