package admission

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"
)

// positions are the queued runs in the order of their turns.
func positions(c *Controller) []int64 {
	var ids []int64
	for _, w := range c.Snapshot().Queued {
		ids = append(ids, w.RunID)
	}
	return ids
}

func TestARestartChangesNoOnesPlace(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		budget := memory(8*gib, 3)
		c, _ := newController(t, budget, Options{OnEvent: func(Event) {}})
		requests := map[int64]Request{}
		for id := int64(1); id <= 60; id++ {
			q := root(id, rnd.Int64N(4)).mem((1 + rnd.Int64N(6)) * gib / 2)
			enqueue(t, c, q)
			requests[id] = c.runs[id].Request
			if running := c.Snapshot().Running; rnd.IntN(3) == 0 && len(running) > 0 {
				c.Leave(running[rnd.IntN(len(running))].RunID)
			}
		}
		before := c.Snapshot()
		kept, err := json.Marshal(c.Turns())
		if err != nil {
			t.Fatal(err)
		}

		next, _ := newController(t, budget, Options{OnEvent: func(Event) {}})
		var turns Turns
		if err := json.Unmarshal(kept, &turns); err != nil {
			t.Fatal(err)
		}
		next.SetTurns(turns)
		for _, r := range before.Running {
			if _, err := next.Restore(requests[r.RunID]); err != nil {
				t.Fatal(err)
			}
		}
		release := next.Hold()
		for _, i := range rnd.Perm(len(before.Queued)) {
			enqueue(t, next, requests[before.Queued[i].RunID])
		}
		got, want := positions(next), positions(c)
		if len(want) == 0 {
			t.Fatalf("seed %d: nothing waits", seed)
		}
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("seed %d: the queue was %v and is %v", seed, want, got)
			}
		}
		// Passes are counted anew, so only what follows from the order is equal.
		release()
		release()
	}
}

func TestNothingStartsWhileRunsArriveTogether(t *testing.T) {
	c, rec := newController(t, slots(2), Options{})
	first, second := c.Hold(), c.Hold()
	late := root(2, 1)
	late.Arrived = time.Unix(2, 0)
	early := root(1, 1)
	early.Arrived = time.Unix(1, 0)
	enqueue(t, c, late, early)
	first()
	first()
	wantStarted(t, rec)
	second()
	wantStarted(t, rec, 1)
	enqueue(t, c, root(3, 2))
	c.Leave(1)
	wantStarted(t, rec, 1, 3)
}
