package admin

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// JournalSize is how many events a node remembers, about a megabyte of them.
const JournalSize = 4096

// journalBatch bounds what a reader takes out of the journal at once.
const journalBatch = 256

// Journal remembers the newest events in memory and hands them to readers. It
// is safe for concurrent use.
type Journal struct {
	mu      sync.Mutex
	ring    []Event
	next    uint64        // how many events were added
	changed chan struct{} // closed and replaced when an event is added
}

// NewJournal makes a journal for size events.
func NewJournal(size int) *Journal {
	return &Journal{ring: make([]Event, size), changed: make(chan struct{})}
}

// Add adds an event, with the present time if it has none. It never waits for
// a reader: one that is too slow loses events, and is told.
func (j *Journal) Add(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	j.ring[j.next%uint64(len(j.ring))] = e
	j.next++
	close(j.changed)
	j.changed = make(chan struct{})
}

// Read is Station.Events.
func (j *Journal) Read(ctx context.Context, o EventOptions, fn func(*Event) error) error {
	var at uint64
	for first := true; ; first = false {
		batch, next, lost, changed := j.take(at)
		if lost > 0 && !first {
			if err := fn(&Event{Time: time.Now().UTC(), Type: EventLost, Message: fmt.Sprintf("%d events came faster than they were read", lost)}); err != nil {
				return err
			}
		}
		at = next
		for i := range batch {
			if e := &batch[i]; !e.Time.Before(o.Since) {
				if err := fn(e); err != nil {
					return err
				}
			}
		}
		if len(batch) > 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if !o.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// take copies events from the position at on. It returns the position behind
// them, how many between were overwritten, and what is closed at the next one.
func (j *Journal) take(at uint64) (batch []Event, next, lost uint64, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size := uint64(len(j.ring)); j.next > size && at < j.next-size {
		lost = j.next - size - at
		at += lost
	}
	next = min(j.next, at+journalBatch)
	for ; at < next; at++ {
		batch = append(batch, j.ring[at%uint64(len(j.ring))])
	}
	return batch, next, lost, j.changed
}
