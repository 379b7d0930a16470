// Package fuzztest holds parsers to what a crash does not show: how much memory they ask
// for, and how much they read. Neither depends on how fast the machine is. Only tests may
// import it.
package fuzztest

import (
	"errors"
	"io"
	"runtime/metrics"
	"sync/atomic"
	"testing"
)

// Bounded runs f and fails when all that was allocated meanwhile, freed or not, is more than
// most bytes. Nothing else may run at the same time.
func Bounded(tb testing.TB, most uint64, f func()) {
	tb.Helper()
	before := allocated()
	f()
	if n := allocated() - before; n > most {
		tb.Fatalf("%d bytes were allocated, %d are enough", n, most)
	}
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// ErrWork is what a Reader says when it was read too much from.
var ErrWork = errors.New("more was read than any input of this size is worth")

// Reader is an io.ReaderAt that lends out so many bytes and no more. A read counts for at
// least 64 bytes, so that many small ones are found too.
type Reader struct {
	r    io.ReaderAt
	left atomic.Int64
}

// NewReader makes a reader that lends out most bytes.
func NewReader(r io.ReaderAt, most int64) *Reader {
	w := &Reader{r: r}
	w.left.Store(most)
	return w
}

func (w *Reader) ReadAt(p []byte, off int64) (int, error) {
	if w.left.Add(-max(int64(len(p)), 64)) < 0 {
		return 0, ErrWork
	}
	return w.r.ReadAt(p, off)
}
