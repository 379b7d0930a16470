package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

// A server behind a WSGI gateway may take no body without a length, and a
// request with a mistake in its last byte should not reach it at all. So the
// body that goes to the server is first written to the end: a short one in
// memory, a long one in a file that has no name, on the node's disk.

const spoolMemory = 256 << 10

// spooler hands out spools within one budget of bytes on disk.
type spooler struct {
	dir    string
	mu     sync.Mutex
	budget int64
}

func (s *spooler) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.budget {
		return false
	}
	s.budget -= n
	return true
}

// spool is one body. It is written once and can then be read again and again.
// Close gives back what it holds.
type spool struct {
	s    *spooler
	mem  bytes.Buffer
	file *os.File
	n    int64 // in file
}

func (s *spooler) new() *spool { return &spool{s: s} }

func (b *spool) Write(p []byte) (int, error) {
	if b.file == nil && b.mem.Len()+len(p) <= spoolMemory {
		return b.mem.Write(p)
	}
	if b.file == nil {
		file, err := os.CreateTemp(b.s.dir, "v6node-body-*")
		if err != nil {
			return 0, fmt.Errorf("%w (%w)", errDisk, err)
		}
		b.file = file
		if err := os.Remove(file.Name()); err != nil {
			return 0, fmt.Errorf("%w (%w)", errDisk, err)
		}
		held := b.mem.Bytes()
		b.mem = bytes.Buffer{}
		if err := b.append(held); err != nil {
			return 0, err
		}
	}
	if err := b.append(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

var errDisk = refuse(http.StatusServiceUnavailable, "The node has no room now for a request of this size; try again later.")

func (b *spool) append(p []byte) error {
	if !b.s.take(int64(len(p))) {
		return errDisk
	}
	b.n += int64(len(p))
	if _, err := b.file.Write(p); err != nil {
		return fmt.Errorf("%w (%w)", errDisk, err)
	}
	return nil
}

func (b *spool) size() int64 {
	if b.file != nil {
		return b.n
	}
	return int64(b.mem.Len())
}

// reader returns a new reader from the beginning.
func (b *spool) reader() io.Reader {
	if b.file != nil {
		return io.NewSectionReader(b.file, 0, b.n)
	}
	return bytes.NewReader(b.mem.Bytes())
}

func (b *spool) Close() error {
	b.mem = bytes.Buffer{}
	if b.file == nil {
		return nil
	}
	b.s.take(-b.n)
	err := b.file.Close()
	b.file, b.n = nil, 0
	return err
}
