package admin

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"
)

func add(j *Journal, n int) {
	for i := range n {
		j.Add(Event{Type: EventStarted, Run: int64(i + 1)})
	}
}

func TestAJournalRemembersTheNewestEvents(t *testing.T) {
	j := NewJournal(4)
	add(j, 6)
	var got []int64
	if err := j.Read(t.Context(), EventOptions{}, func(e *Event) error { got = append(got, e.Run); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[0] != 3 || got[3] != 6 {
		t.Errorf("got %v", got)
	}
	if err := j.Read(t.Context(), EventOptions{Since: time.Now().Add(time.Hour)}, func(*Event) error { return errors.New("too old") }); err != nil {
		t.Error(err)
	}
}

func TestAReaderThatIsTooSlowIsTold(t *testing.T) {
	j := NewJournal(4)
	add(j, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var types []EventType
	err := j.Read(ctx, EventOptions{Follow: true}, func(e *Event) error {
		types = append(types, e.Type)
		switch len(types) {
		case 1:
			add(j, 10) // while this one is read
		case 2:
			if e.Message != "6 events came faster than they were read" {
				t.Errorf("message %q", e.Message)
			}
		case 6:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(types) != 6 || types[1] != EventLost || types[2] != EventStarted {
		t.Errorf("%v, %v", types, err)
	}
}

func TestEveryFollowerSeesEveryEventOnce(t *testing.T) {
	j := NewJournal(10000)
	const writers, each, readers = 4, 200, 4
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			seen := make(map[string]bool)
			err := j.Read(ctx, EventOptions{Follow: true}, func(e *Event) error {
				if seen[e.Message] {
					t.Errorf("%q came twice", e.Message)
				}
				seen[e.Message] = true
				if len(seen) == writers*each {
					return errDone
				}
				return nil
			})
			if err != errDone {
				t.Errorf("%v after %d events", err, len(seen))
			}
		})
	}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				j.Add(Event{Message: strconv.Itoa(w) + "/" + strconv.Itoa(i)})
			}
		})
	}
	wg.Wait()
}

var errDone = errors.New("done")
