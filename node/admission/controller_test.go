package admission

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunsStartFirstComeFirstServedAsRoomAllows(t *testing.T) {
	c, rec := newController(t, slots(3), Options{})
	enqueue(t, c, root(1, 7), root(2, 7), root(3, 7), root(4, 7))
	wantStarted(t, rec, 1, 2) // the third slot is for subtasks
	c.Leave(2)
	wantStarted(t, rec, 1, 2, 3)
	c.Leave(1)
	wantStarted(t, rec, 1, 2, 3, 4)
}

func TestWaitReturnsAtAdmissionAndReleaseMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newController(t, slots(1), Options{})
		enqueue(t, c, root(1, 7), root(2, 7), root(3, 7))
		release, err := c.Wait(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := c.Wait(t.Context(), 2)
			got <- err
		}()
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatal("admitted beside another run", err)
		default:
		}
		release()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		release() // must not free run 2's slot
		if s := c.Snapshot(); len(s.Running) != 1 || len(s.Queued) != 1 {
			t.Fatalf("running %v, queued %v", s.Running, s.Queued)
		}
	})
}

func TestWaitLeavesTheQueueWhenItsContextEnds(t *testing.T) {
	c, rec := newController(t, slots(1), Options{})
	enqueue(t, c, root(1, 7), root(2, 7), root(3, 7))
	ctx, cancel := context.WithCancelCause(t.Context())
	killed := errors.New("killed")
	cancel(killed)
	if _, err := c.Wait(ctx, 2); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	c.Leave(1)
	wantStarted(t, rec, 1, 3)
	if _, err := c.Wait(t.Context(), 2); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
}

func TestASmallRunPassesABigOneThatDoesNotFit(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 0), Options{})
	enqueue(t, c, root(1, 7).mem(3*gib), root(2, 7).mem(6*gib), root(3, 7).mem(gib))
	wantStarted(t, rec, 1, 3)
	if why := reason(t, c, 2); why != "waiting for memory: 6.0 GiB asked, 4.0 GiB free of 8.0 GiB; 0 runs ahead" {
		t.Fatal(why)
	}
}

func TestABigRunIsPassedOnlySoOften(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 0), Options{MaxPasses: 3})
	enqueue(t, c, root(1, 7).mem(2*gib), root(2, 7).mem(5*gib))
	next := int64(10)
	for range 20 { // a stream of small runs, each following the one before
		enqueue(t, c, root(next, 7).mem(gib))
		c.Leave(next - 1)
		next++
	}
	wantStarted(t, rec, 1, 10, 11, 12)
	if why := reason(t, c, 29); !strings.HasPrefix(why, "waiting behind run 2, for which room is being kept") {
		t.Fatal(why)
	}
	c.Leave(1)
	if got := rec.started(); got[4] != 2 {
		t.Fatal(got)
	}
}

func TestABigRunIsPassedOnlyForSoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rec := newController(t, memory(8*gib, 0), Options{MaxPassedFor: time.Minute})
		enqueue(t, c, root(1, 7).mem(2*gib), root(2, 7).mem(5*gib))
		time.Sleep(time.Hour) // waiting alone does not count: nobody was let past
		enqueue(t, c, root(3, 7).mem(gib))
		wantStarted(t, rec, 1, 3)
		c.Leave(3)
		time.Sleep(time.Minute)
		enqueue(t, c, root(4, 7).mem(gib))
		wantStarted(t, rec, 1, 3)
		c.Leave(1)
		wantStarted(t, rec, 1, 3, 2) // and run 4 may not take the room for run 2's subtask
	})
}

func TestWhatDoesNotTouchAReservationMayStillPass(t *testing.T) {
	b := memory(16*gib, 0)
	b.Devices = map[string]int64{"gpu": 1}
	c, rec := newController(t, b, Options{MaxPasses: 1})
	enqueue(t, c, root(1, 7).mem(gib).device("gpu", 1), root(2, 7).mem(2*gib).device("gpu", 1))
	enqueue(t, c, root(3, 7).mem(gib), root(4, 7).mem(gib), root(5, 7).mem(gib))
	wantStarted(t, rec, 1, 3, 4, 5)
	enqueue(t, c, root(6, 7).mem(9*gib)) // beside it run 2 would lack memory
	wantStarted(t, rec, 1, 3, 4, 5)
	c.Leave(1)
	if got := rec.started(); got[4] != 2 {
		t.Fatal(got)
	}
}

func TestAFloodOfOneOrganizationDoesNotStarveAnothersSingleRun(t *testing.T) {
	c, rec := newController(t, slots(8), Options{})
	for id := int64(1); id <= 500; id++ {
		enqueue(t, c, root(id, 1))
	}
	enqueue(t, c, root(1000, 2))
	c.Leave(1)
	if got := rec.started(); got[len(got)-1] != 1000 {
		t.Fatalf("the single run was not next: %v", got)
	}
	for id := int64(2); id <= 500; id++ {
		c.Leave(id)
	}
	if got := rec.started(); len(got) != 501 || got[7] != 1000 || got[500] != 500 {
		t.Fatalf("%d started, in the order %v", len(got), got)
	}
}

func TestOrganizationsTakeTurnsByWhatTheirRunsAskFor(t *testing.T) {
	c, _ := newController(t, memory(8*gib, 0), Options{})
	enqueue(t, c, root(1, 3).mem(8*gib)) // holds the node while the others queue up
	for i := range int64(4) {
		enqueue(t, c, root(10+i, 1).mem(4*gib))
	}
	for i := range int64(8) {
		enqueue(t, c, root(20+i, 2).mem(gib))
	}
	// One run of organization 1 is worth four of organization 2.
	var order []int64
	for _, w := range c.Snapshot().Queued {
		order = append(order, w.OrganizationID)
	}
	want := []int64{1, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 1}
	for i := range want {
		if order[i] != want[i] {
			t.Fatalf("order of organizations %v, want %v", order, want)
		}
	}
}

func TestAnOrganizationThatWithdrewItsFloodPaysNothing(t *testing.T) {
	c, rec := newController(t, slots(3), Options{})
	enqueue(t, c, root(1, 9), root(2, 9))
	for id := int64(10); id < 500; id++ {
		enqueue(t, c, root(id, 1))
	}
	enqueue(t, c, root(600, 2), root(601, 2), root(602, 2))
	for id := int64(10); id < 500; id++ {
		c.Leave(id)
	}
	enqueue(t, c, root(700, 1))
	c.Leave(1)
	c.Leave(2)
	wantStarted(t, rec, 1, 2, 600, 700)
}

func TestARunThatCanNeverFitIsRefusedAtOnceWithAReason(t *testing.T) {
	b := Budget{Resources: Resources{Memory: 8 * gib, MilliCPUs: 2000, Pids: 4096, Devices: map[string]int64{"nvidia.com/gpu": 1}}, Runs: 8}
	c, _ := newController(t, b, Options{})
	cpus, pids := root(2, 7), root(3, 7)
	cpus.Ask.MilliCPUs, pids.Ask.Pids = MilliCPUs(2.5), 5000
	for _, tt := range []struct {
		q    Request
		want string
	}{
		{root(1, 7).mem(12 * gib), "run 1 can never start on this node: it asks for 12.0 GiB of memory and the budget has 8.0 GiB; lower its limit or raise the budget"},
		{cpus, "run 2 can never start on this node: it asks for 2.5 CPUs and the budget has 2; lower its limit or raise the budget"},
		{pids, "run 3 can never start on this node: it asks for 5000 pids and the budget has 4096; lower its limit or raise the budget"},
		{root(4, 7).device("nvidia.com/gpu", 2), "run 4 can never start on this node: it asks for 2 of nvidia.com/gpu and the budget has 1; lower its limit or raise the budget"},
		{root(5, 7).device("amd.com/gpu", 1), "run 5 can never start on this node: it asks for 1 amd.com/gpu and the budget has none; ask for fewer or add the device to the budget"},
	} {
		err := c.Enqueue(tt.q)
		if !errors.Is(err, ErrNeverFits) || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
	if s := c.Snapshot(); len(s.Queued)+len(s.Running) != 0 || s.Counters.Refused != 5 {
		t.Fatalf("%+v", s)
	}
}

func TestASubtaskThatItsOwnParentLeavesNoRoomForIsRefusedAtOnce(t *testing.T) {
	c, _ := newController(t, memory(8*gib, 4), Options{})
	enqueue(t, c, root(1, 7).mem(5*gib))
	err := c.Enqueue(childOf(2, 1).mem(4 * gib))
	want := "run 2 can never start on this node: it asks for 4.0 GiB of memory, the budget has 8.0 GiB, and the runs that wait for it hold 5.0 GiB of that until it has ended; lower the limits of these runs or raise the budget"
	if !errors.Is(err, ErrNeverFits) || err.Error() != want {
		t.Fatalf("got %v", err)
	}
}

func TestARunWithoutLimitsCountsAsAnEqualShare(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 8), Options{})
	enqueue(t, c, root(1, 7).mem(6*gib), root(2, 7), root(3, 7))
	wantStarted(t, rec, 1) // 1 GiB each, and 2 GiB are kept for a subtask of run 1
	if why := reason(t, c, 2); why != "waiting for memory: 1.0 GiB asked, 2.0 GiB free of 8.0 GiB and kept for subtasks; 0 runs ahead" {
		t.Fatal(why)
	}
	c.Leave(1)
	wantStarted(t, rec, 1, 2, 3)
	if got := c.Snapshot().Used.Memory; got != 2*gib {
		t.Fatal(got)
	}
}

func TestPauseHoldsTheQueueExceptWhatRunningRunsWaitFor(t *testing.T) {
	c, rec := newController(t, slots(4), Options{})
	enqueue(t, c, root(1, 7))
	c.Pause()
	enqueue(t, c, root(2, 7), childOf(3, 1), childOf(4, 1000))
	wantStarted(t, rec, 1, 3)
	if why := reason(t, c, 2); why != "waiting for the node to be resumed; 1 run ahead" {
		t.Fatal(why)
	}
	c.Resume()
	wantStarted(t, rec, 1, 3, 4, 2)
}

func TestRestoredRunsCountEvenBeyondTheBudget(t *testing.T) {
	c, rec := newController(t, slots(2), Options{})
	var release []func()
	for id := int64(1); id <= 4; id++ {
		r, err := c.Restore(root(id, 7))
		if err != nil {
			t.Fatal(err)
		}
		release = append(release, r)
	}
	enqueue(t, c, root(5, 7))
	for i, r := range release {
		r()
		if started := len(rec.started()) == 1; started != (i == 3) {
			t.Fatalf("after %d releases: %v", i+1, rec.started())
		}
	}
}

func TestAQueueIsRebuiltInItsOrderAfterARestart(t *testing.T) {
	began := time.Now().Add(-time.Hour)
	c, rec := newController(t, slots(3), Options{})
	at := func(q Request, minute int) Request {
		q.Arrived = began.Add(time.Duration(minute) * time.Minute)
		return q
	}
	c.Pause()
	// The server lists the runs in any order; the subtask before its parent.
	enqueue(t, c, at(root(4, 7), 4), at(root(2, 7), 2), at(childOf(5, 1), 5), at(root(3, 7), 3))
	if _, err := c.Restore(at(root(1, 7), 1)); err != nil {
		t.Fatal(err)
	}
	wantStarted(t, rec, 5)
	c.Resume()
	wantStarted(t, rec, 5, 2)
	c.Leave(1)
	wantStarted(t, rec, 5, 2, 3)
}

func TestTheBudgetCanBeChangedWhileRunsWait(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 8), Options{})
	enqueue(t, c, root(1, 7).mem(4*gib), root(2, 7).mem(6*gib))
	if err := c.SetBudget(memory(5*gib, 8)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), 2); !errors.Is(err, ErrNeverFits) {
		t.Fatal(err)
	}
	enqueue(t, c, root(3, 7).mem(2*gib))
	wantStarted(t, rec, 1)
	if err := c.SetBudget(memory(16*gib, 8)); err != nil {
		t.Fatal(err)
	}
	wantStarted(t, rec, 1, 3)
	if err := c.SetBudget(Budget{Runs: -1}); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
}

func TestLimitsOfRunsCanBeChanged(t *testing.T) {
	c, rec := newController(t, memory(8*gib, 8), Options{})
	enqueue(t, c, root(1, 7).mem(2*gib), root(2, 7).mem(2*gib), root(3, 7).mem(5*gib))
	wantStarted(t, rec, 1, 2)
	err := c.Update(1, Request{Ask: Resources{Memory: 7 * gib}})
	if !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "7.0 GiB of memory") {
		t.Fatal(err)
	}
	if err := c.Update(1, Request{Ask: Resources{Memory: 9 * gib}}); !errors.Is(err, ErrNeverFits) {
		t.Fatal(err)
	}
	if err := c.Update(3, Request{Ask: Resources{Memory: 9 * gib}}); !errors.Is(err, ErrNeverFits) {
		t.Fatal(err)
	}
	if got := c.Snapshot().Used.Memory; got != 4*gib {
		t.Fatal(got)
	}
	if err := c.Update(1, Request{Ask: Resources{Memory: 3 * gib}}); err != nil { // 3+2+3 for a subtask
		t.Fatal(err)
	}
	if err := c.Update(3, Request{Ask: Resources{Memory: gib / 2}}); err != nil {
		t.Fatal(err)
	}
	wantStarted(t, rec, 1, 2)
	if err := c.Update(1, Request{Ask: Resources{Memory: gib}}); err != nil {
		t.Fatal(err)
	}
	wantStarted(t, rec, 1, 2, 3)
	if err := c.Update(77, Request{}); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
}

func TestARunIsEnqueuedOnce(t *testing.T) {
	c, _ := newController(t, slots(1), Options{})
	enqueue(t, c, root(1, 7), root(2, 7))
	for id := int64(1); id <= 2; id++ {
		if err := c.Enqueue(root(id, 7)); !errors.Is(err, ErrKnown) {
			t.Fatal(err)
		}
	}
}

func TestAmountsThatMakeNoSenseAreRefused(t *testing.T) {
	c, _ := newController(t, slots(1), Options{})
	for _, r := range []Resources{{Memory: -1}, {MilliCPUs: -1}, {Pids: maxAmount + 1}, {Devices: map[string]int64{"gpu": -1}}} {
		if err := c.Enqueue(Request{RunID: 1, TaskID: 1, Ask: r}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
		if _, err := New(Budget{Resources: r}, Options{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, o := range []Options{{Depth: MaxDepth + 1}, {MaxPasses: -1}, {ChildReserve: Resources{Memory: -1}}, {DefaultAsk: Resources{Pids: -1}}} {
		if _, err := New(slots(1), o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestCloseRefusesWhatIsQueued(t *testing.T) {
	c, _ := newController(t, slots(1), Options{})
	enqueue(t, c, root(1, 7), root(2, 7))
	release, err := c.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := c.Wait(t.Context(), 2); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	release()
	if err := c.Enqueue(root(3, 7)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestManyGoroutinesNeverHoldMoreThanTheBudget(t *testing.T) {
	var mu sync.Mutex
	held, most := 0, 0
	c, _ := newController(t, slots(9), Options{OnEvent: func(Event) {}})
	var wg sync.WaitGroup
	for id := int64(1); id <= 400; id++ {
		wg.Go(func() {
			ctx := t.Context()
			if id%7 == 0 {
				ended, cancel := context.WithCancel(ctx)
				cancel()
				ctx = ended
			}
			if err := c.Enqueue(root(id, id%5)); err != nil {
				t.Error(err)
				return
			}
			release, err := c.Wait(ctx, id)
			if err != nil {
				if id%7 != 0 {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			held++
			most = max(most, held)
			mu.Unlock()
			c.Snapshot()
			mu.Lock()
			held--
			mu.Unlock()
			release()
		})
	}
	wg.Wait()
	if s := c.Snapshot(); most > 8 || len(s.Queued)+len(s.Running) != 0 {
		t.Fatalf("held up to %d at once; left %d running, %d queued", most, len(s.Running), len(s.Queued))
	}
}
