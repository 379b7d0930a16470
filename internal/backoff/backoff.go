// Package backoff spaces repeated attempts: exponentially, with jitter, bounded.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Policy bounds the waits. Each wait is drawn between half and the whole of a
// value that doubles from Min to Max.
type Policy struct{ Min, Max time.Duration }

// Policies that the node uses.
var (
	Server   = Policy{Min: 500 * time.Millisecond, Max: 30 * time.Second}
	Start    = Policy{Min: 500 * time.Millisecond, Max: 5 * time.Second}
	Runtime  = Policy{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	Cleaning = Policy{Min: 100 * time.Millisecond, Max: 30 * time.Second}
)

// Backoff yields the waits of one sequence of attempts. Not for concurrent use.
type Backoff struct {
	p    Policy
	next time.Duration
}

// New starts a sequence.
func New(p Policy) *Backoff { return &Backoff{p: p, next: p.Min} }

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	d := b.next
	b.next = min(2*b.next, b.p.Max)
	return d/2 + rand.N(d/2+1)
}

// Reset starts the sequence anew, after a success.
func (b *Backoff) Reset() { b.next = b.p.Min }

// Sleep waits, or returns the context's error when that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
