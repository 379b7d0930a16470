package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	filePrefix = "audit-"
	fileSuffix = ".jsonl"
)

func fileName(seq uint64) string { return fmt.Sprintf("%s%012d%s", filePrefix, seq, fileSuffix) }

// files lists the audit files of a directory, the oldest first.
func files(dir string) ([]string, error) {
	list, err := os.ReadDir(dir) // sorted by name, which begins with the number
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the audit files: %w", err)
	}
	var out []string
	for _, e := range list {
		number, ok := strings.CutPrefix(e.Name(), filePrefix)
		number, ends := strings.CutSuffix(number, fileSuffix)
		if _, err := strconv.ParseUint(number, 10, 64); ok && ends && err == nil && e.Type().IsRegular() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Line is one line of an audit file, as it stands there.
type Line struct {
	File   string
	Number int    // in the file, from 1
	Raw    []byte // without the newline; valid until the next line is read
	// Whole is false for a last line without a newline: one that is just being
	// written, or that a crash has cut.
	Whole bool
}

// Entry decodes the line.
func (l *Line) Entry() (*Entry, error) {
	e := new(Entry)
	if err := json.Unmarshal(l.Raw, e); err != nil {
		return nil, &Damage{File: l.File, Line: l.Number, Problem: "it is no entry: it was changed"}
	}
	return e, nil
}

// Each calls fn for every line of the directory in order. An error of fn ends it.
func Each(dir string, fn func(*Line) error) error {
	names, err := files(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := eachOf(dir, name, 0, fn); err != nil {
			return err
		}
	}
	return nil
}

// eachOf reads one file from an offset on and returns the offset behind the
// last whole line.
func eachOf(dir, name string, from int64, fn func(*Line) error) (end int64, err error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return from, fmt.Errorf("read the audit log: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return from, fmt.Errorf("read the audit log: %w", err)
	}
	end = from
	r := bufio.NewReaderSize(f, 64<<10)
	l := Line{File: name}
	for {
		l.Raw = l.Raw[:0]
		l.Number++
		for {
			part, err := r.ReadSlice('\n')
			l.Raw = append(l.Raw, part...)
			if len(l.Raw) > maxLine {
				return end, &Damage{File: name, Line: l.Number, Problem: fmt.Sprintf("it is longer than %d bytes: it was changed", maxLine)}
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return end, fmt.Errorf("read the audit log: %w", err)
			}
			break
		}
		if len(l.Raw) == 0 {
			return end, nil
		}
		size := int64(len(l.Raw))
		l.Raw, l.Whole = bytes.CutSuffix(l.Raw, []byte{'\n'})
		if err := fn(&l); err != nil {
			return end, err
		}
		if !l.Whole {
			return end, nil
		}
		end += size
	}
}

// tailOf is where the first line begins that is wholly within the last tailBytes
// of a file.
func tailOf(dir, name string) (int64, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return 0, fmt.Errorf("read the audit log: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("read the audit log: %w", err)
	}
	if info.Size() <= tailBytes {
		return 0, nil
	}
	from := info.Size() - tailBytes
	r := bufio.NewReader(io.NewSectionReader(f, from, tailBytes))
	for {
		part, err := r.ReadSlice('\n')
		from += int64(len(part))
		switch {
		case err == nil || errors.Is(err, io.EOF):
			return from, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return 0, fmt.Errorf("read the audit log: %w", err)
		}
	}
}

// atLine makes the line of a damage count from its file's beginning, which was
// read from an offset on.
func atLine(err error, dir string, from map[string]int64) error {
	var d *Damage
	if !errors.As(err, &d) || from[d.File] == 0 || d.Line == 0 {
		return err
	}
	f, openErr := os.Open(filepath.Join(dir, d.File))
	if openErr != nil {
		return openErr
	}
	defer f.Close() //nolint:errcheck // only read
	block := make([]byte, 64<<10)
	r := io.LimitReader(f, from[d.File])
	for {
		n, readErr := r.Read(block)
		d.Line += bytes.Count(block[:n], []byte{'\n'})
		if errors.Is(readErr, io.EOF) {
			return err
		}
		if readErr != nil {
			return readErr
		}
	}
}
