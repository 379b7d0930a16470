// Package plainfile opens files that somebody has named. What is no regular file is refused: a pipe would
// never answer, and a device never end.
package plainfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Open opens a regular file for reading. It never waits, whatever is there.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Read returns what is in a regular file of most bytes at most.
func Read(path string, most int64) (_ []byte, err error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return ReadAll(f, most)
}

// ReadAll does the same with a file that is open, for those who look at its owner and mode first.
func ReadAll(f *os.File, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, fmt.Errorf("%s is longer than %d bytes, which no such file is", f.Name(), most)
	}
	return data, err
}
