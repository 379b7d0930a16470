package admission

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSubtasksGetInWhenEverySlotOfParentsIsTaken(t *testing.T) {
	c, rec := newController(t, slots(8), Options{})
	for id := int64(1); id <= 20; id++ {
		enqueue(t, c, root(id, id%3))
	}
	parents := rec.started()
	if len(parents) != 7 {
		t.Fatalf("%d runs fill the node", len(parents))
	}
	for _, p := range parents { // all of them wait for a subtask here
		enqueue(t, c, childOf(100+p, p))
	}
	waits := c.Snapshot().Queued[0]
	if waits.Reason != "waiting for a free run slot: 0 free of 8; 0 runs ahead" {
		t.Fatal(waits.Reason)
	}
	done := 0
	for done < len(parents) {
		before := done
		for _, p := range parents {
			for _, r := range c.Snapshot().Running {
				if r.RunID == 100+p {
					c.Leave(100 + p)
					c.Leave(p) // it was waiting for this one only
					done++
				}
			}
		}
		if done == before {
			t.Fatalf("deadlock: %+v", c.Snapshot())
		}
	}
}

func TestAParentsMemoryDecidesHowMuchIsKeptForSubtasks(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 0), Options{})
	enqueue(t, c, root(1, 7).mem(3*gib), root(2, 7).mem(3*gib), root(3, 7).mem(gib))
	// 3 + 3 would leave 2 GiB: too little for a subtask of either.
	wantStarted(t, rec, 1, 3)
	enqueue(t, c, childOf(4, 1).mem(3*gib))
	wantStarted(t, rec, 1, 3, 4)
}

func TestAnnouncedSmallSubtasksLeaveMoreRoomForParents(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 0), Options{})
	for id := int64(1); id <= 3; id++ {
		q := root(id, 7).mem(3 * gib)
		q.Child = &Resources{Memory: gib}
		enqueue(t, c, q)
	}
	wantStarted(t, rec, 1, 2)
	enqueue(t, c, childOf(4, 1).mem(gib), childOf(5, 2).mem(gib))
	wantStarted(t, rec, 1, 2, 4, 5)
}

func TestARunThatIsAloneMayUseTheWholeBudget(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 4), Options{ChildReserve: Resources{Memory: gib}})
	enqueue(t, c, root(1, 7).mem(8*gib), root(2, 7).mem(gib))
	wantStarted(t, rec, 1)
	c.Leave(1)
	wantStarted(t, rec, 1, 2)
}

func TestOneSlotRunsRootsAndRefusesTheirLocalSubtasks(t *testing.T) {
	c, rec := newController(t, slots(1), Options{})
	enqueue(t, c, root(1, 7))
	err := c.Enqueue(childOf(2, 1))
	if !errors.Is(err, ErrNeverFits) || !strings.Contains(err.Error(), "asks for a run slot, the budget has 1, and the runs that wait for it hold 1") {
		t.Fatal(err)
	}
	enqueue(t, c, childOf(3, 500)) // its parent runs on another node
	c.Leave(1)
	wantStarted(t, rec, 1, 3)
}

func TestNestedSubtasksGetInUpToTheDepth(t *testing.T) {
	c, rec := newController(t, slots(6), Options{Depth: 3})
	for id := int64(1); id <= 10; id++ {
		enqueue(t, c, root(id, 7))
	}
	wantStarted(t, rec, 1, 2, 3)
	enqueue(t, c, childOf(11, 1), childOf(12, 2), childOf(13, 3))
	wantStarted(t, rec, 1, 2, 3, 11)
	enqueue(t, c, childOf(21, 11), childOf(22, 11))
	wantStarted(t, rec, 1, 2, 3, 11, 21)
	enqueue(t, c, childOf(31, 21))
	wantStarted(t, rec, 1, 2, 3, 11, 21, 31)
}

func TestALoneFamilyMayNestAsDeepAsTheBudgetIs(t *testing.T) {
	c, rec := newController(t, slots(6), Options{})
	enqueue(t, c, root(1, 7))
	for id := int64(2); id <= 6; id++ {
		enqueue(t, c, childOf(id, id-1))
	}
	wantStarted(t, rec, 1, 2, 3, 4, 5, 6)
	if err := c.Enqueue(childOf(7, 6)); !errors.Is(err, ErrNeverFits) {
		t.Fatal(err)
	}
}

func TestNestingBeyondTheDepthEndsInARefusalAndNotInADeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rec := newController(t, slots(4), Options{StallAfter: time.Minute})
		enqueue(t, c, root(1, 7), root(2, 7))
		enqueue(t, c, childOf(11, 1), childOf(12, 2))
		enqueue(t, c, childOf(21, 11)) // fills nothing: no slot is left
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if rec.refusal(21) != nil {
			t.Fatal("refused although run 12 may end by itself")
		}
		enqueue(t, c, childOf(22, 12))
		time.Sleep(time.Minute)
		synctest.Wait()
		_, err := c.Wait(t.Context(), 22)
		if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), "for 1m0s all 4 running runs have been waiting for subtasks that do not fit beside them (this one asks for a run slot, 0 free of 4)") {
			t.Fatal(err)
		}
		c.Leave(12) // it takes note of the refusal and ends
		wantStarted(t, rec, 1, 2, 11, 12, 21)
		if n := c.Snapshot().Counters.Stalls; n != 1 {
			t.Fatal(n)
		}
	})
}

func TestAStallThatEndsByItselfRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rec := newController(t, slots(4), Options{StallAfter: time.Minute})
		enqueue(t, c, root(1, 7), root(2, 7), childOf(11, 1), childOf(12, 2), childOf(21, 11), childOf(22, 12))
		time.Sleep(50 * time.Second)
		c.Leave(12)                   // did not wait for its subtask after all
		enqueue(t, c, childOf(23, 2)) // and all wait again
		time.Sleep(50 * time.Second)  // a new countdown
		synctest.Wait()
		if s := c.Snapshot(); s.Counters.Refused != 0 {
			t.Fatalf("%+v", rec.events)
		}
	})
}

func TestAReservationDoesNotShutOutTheSubtasksThatItsRunWaitsFor(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 8), Options{MaxPasses: 1})
	enqueue(t, c, root(1, 7).mem(gib), root(2, 8).mem(8*gib), root(3, 7).mem(gib), root(4, 7).mem(gib))
	wantStarted(t, rec, 1, 3) // run 2 was passed once: it needs the whole node
	enqueue(t, c, childOf(11, 1).mem(gib), childOf(13, 3).mem(gib))
	wantStarted(t, rec, 1, 3, 11, 13)
	for _, id := range []int64{11, 1, 13, 3} {
		c.Leave(id)
	}
	wantStarted(t, rec, 1, 3, 11, 13, 2)
}

func TestSubtasksCountToTheOrganizationOfTheirLocalParent(t *testing.T) {
	c, _ := newController(t, slots(8), Options{})
	enqueue(t, c, root(1, 7), childOf(2, 1), childOf(3, 2), childOf(4, 1000))
	for _, r := range c.Snapshot().Running {
		want := int64(7)
		if r.RunID == 4 {
			want = 99
		}
		if r.OrganizationID != want {
			t.Errorf("run %d counts to %d", r.RunID, r.OrganizationID)
		}
	}
}

func TestSubtasksOfRunsElsewhereFindTheirRoom(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 8), Options{ChildReserve: Resources{Memory: 3 * gib}})
	for id := int64(1); id <= 8; id++ {
		enqueue(t, c, root(id, 7).mem(gib))
	}
	wantStarted(t, rec, 1, 2, 3, 4, 5) // and all may wait for other nodes
	enqueue(t, c, childOf(100, 1000).mem(3*gib))
	wantStarted(t, rec, 1, 2, 3, 4, 5, 100)
}

func TestAReservationDoesNotShutOutSubtasksThatOtherNodesWaitFor(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 8), Options{MaxPasses: 1})
	enqueue(t, c, root(1, 7).mem(gib), root(2, 8).mem(8*gib), root(3, 7).mem(gib), root(4, 7).mem(gib))
	wantStarted(t, rec, 1, 3)
	// Runs 1 and 3 may wait for another node, which may wait for this one.
	enqueue(t, c, childOf(100, 1000).mem(gib))
	wantStarted(t, rec, 1, 3, 100)
	c.Leave(1)
	c.Leave(3)
	enqueue(t, c, childOf(101, 1000).mem(gib)) // now nothing here waits
	wantStarted(t, rec, 1, 3, 100)
	c.Leave(100)
	wantStarted(t, rec, 1, 3, 100, 2)
}

func TestARunThatNeedsTheNodeForItselfIsNotPassedForEver(t *testing.T) {
	b := memory(8*gib, 0)
	b.Devices = map[string]int64{"gpu": 4}
	c, rec := newController(t, b, Options{MaxPasses: 1, ChildReserve: Resources{Memory: gib}})
	// Runs that only ask for a device: they take none of the memory.
	enqueue(t, c, root(1, 7).device("gpu", 1), root(2, 7).mem(8*gib), root(3, 7).device("gpu", 1), root(4, 7).device("gpu", 1))
	wantStarted(t, rec, 1, 3)
	c.Leave(1)
	c.Leave(3)
	wantStarted(t, rec, 1, 3, 2, 4) // and beside it runs that take none of what it holds
}

func TestASubtaskLargerThanExpectedRaisesTheRoomForTheNext(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 0), Options{})
	small := func(id int64) Request {
		q := root(id, 7).mem(gib)
		q.Child = &Resources{Memory: gib}
		return q
	}
	enqueue(t, c, small(1), childOf(100, 1).mem(4*gib))
	c.Leave(100)
	enqueue(t, c, small(2), small(3), small(4), small(5))
	wantStarted(t, rec, 1, 100, 2, 3, 4)
	enqueue(t, c, childOf(101, 1).mem(4*gib))
	wantStarted(t, rec, 1, 100, 2, 3, 4, 101)
}

func TestWhenAllRunsWaitNoReservationHoldsUpTheirSubtasks(t *testing.T) {
	c, rec := newController(t, memory(16*gib, 0), Options{MaxPasses: 1})
	enqueue(t, c, root(1, 7).mem(2*gib), childOf(11, 1).mem(9*gib), childOf(12, 1).mem(2*gib))
	enqueue(t, c, root(2, 8).mem(5*gib))     // lacks 2 GiB, until run 11 or 12 has ended
	enqueue(t, c, childOf(13, 1).mem(gib/2)) // passes it
	enqueue(t, c, childOf(21, 11).mem(gib))  // deeper than room is kept for
	wantStarted(t, rec, 1, 11, 12, 13)
	c.Leave(13)
	wantStarted(t, rec, 1, 11, 12, 13) // run 12 may end by itself
	enqueue(t, c, childOf(22, 12).mem(gib))
	wantStarted(t, rec, 1, 11, 12, 13, 21) // now all wait
}
