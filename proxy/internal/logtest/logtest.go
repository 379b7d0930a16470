// Package logtest has a log that tests read while it is written.
package logtest

import (
	"bytes"
	"sync"
)

// Records is one. The zero value is empty.
type Records struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (r *Records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

// String is what was written so far.
func (r *Records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}
