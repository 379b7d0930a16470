package admission

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// simTask is one task of a simulated job: it works, creates its subtasks, waits
// for all of them, works again and ends.
type simTask struct {
	req      Request
	node     int
	work     time.Duration
	parent   *simTask
	children []*simTask
	series   bool // creates its subtasks one after the other

	running, finished, refused bool
	created, open              int
}

// waits tells whether the task is held up by its subtasks and by nothing else.
func (t *simTask) waits() bool { return t.running && t.open > 0 }

type alarm struct {
	at time.Time
	do func()
}

// world is nodes with their controllers, and what happens on them.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	nodes   []*Controller
	budget  []Budget
	tasks   map[int64]*simTask
	alarms  []alarm
	mu      sync.Mutex
	news    []func() // what the controllers told, to be handled outside of their locks
	nextID  int64
	admits  int
	stalls  bool // refusals of stalled subtasks are allowed
	pending int  // tasks that have not finished
}

func newWorld(t *testing.T, seed uint64, nodes int, b func(*rand.Rand) Budget, o Options) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), tasks: make(map[int64]*simTask)}
	for range nodes {
		budget := b(w.rng)
		o := o
		o.OnEvent = func(e Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.news = append(w.news, func() { w.heard(e) })
		}
		c, err := New(budget, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		w.nodes, w.budget = append(w.nodes, c), append(w.budget, budget)
	}
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.alarms = append(w.alarms, alarm{time.Now().Add(d), do})
}

func (w *world) create(s *simTask) {
	w.tasks[s.req.RunID] = s
	w.pending++
	err := w.nodes[s.node].Enqueue(s.req)
	if err == nil {
		return
	}
	if !errors.Is(err, ErrNeverFits) {
		w.t.Fatal(err)
	}
	if w.fitsWithAncestors(s) {
		w.t.Fatalf("refused although it could start: %v", err)
	}
	w.end(s, true)
}

// fitsWithAncestors tells whether s could run on its empty node beside those of
// its ancestors that run there.
func (w *world) fitsWithAncestors(s *simTask) bool {
	sum, runs := s.req.Ask.Memory, int64(1)
	for p := s.parent; p != nil && p.node == s.node; p = p.parent {
		sum, runs = sum+p.req.Ask.Memory, runs+1
	}
	b := w.budget[s.node]
	return (b.Memory == 0 || sum <= b.Memory) && (b.Runs == 0 || runs <= b.Runs)
}

func (w *world) heard(e Event) {
	s := w.tasks[e.RunID]
	switch e.Kind {
	case Admitted:
		w.admits++
		s.running = true
		w.after(s.work, func() { w.proceed(s) })
	case Refused:
		if s == nil || s.finished {
			return // told by Enqueue too
		}
		if errors.Is(e.Err, ErrStalled) && w.stalls {
			w.end(s, true)
		} else if !errors.Is(e.Err, ErrNeverFits) {
			w.t.Fatalf("%v", e.Err)
		}
	}
}

// proceed creates what subtasks are due, or ends the task.
func (w *world) proceed(s *simTask) {
	if s.created == len(s.children) {
		w.end(s, false)
		return
	}
	s.open++ // itself, while it creates: a subtask may be refused at once
	for s.created < len(s.children) {
		k := s.children[s.created]
		s.created++
		s.open++
		w.create(k)
		if s.series {
			break
		}
	}
	w.closeOne(s)
}

func (w *world) closeOne(s *simTask) {
	if s.open--; s.open == 0 {
		w.after(s.work/2, func() { w.proceed(s) })
	}
}

func (w *world) end(s *simTask, refused bool) {
	held := s.running
	s.running, s.finished, s.refused = false, true, refused
	w.pending--
	if held {
		w.nodes[s.node].Leave(s.req.RunID)
	}
	if s.parent != nil {
		w.closeOne(s.parent)
	}
}

func (w *world) next() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.news) == 0 {
		return nil
	}
	do := w.news[0]
	w.news = w.news[1:]
	return do
}

// settle handles all news, and then checks what must hold at rest.
func (w *world) settle() {
	for do := w.next(); do != nil; do = w.next() {
		do()
	}
	for n := range w.nodes {
		w.check(n)
	}
}

func (w *world) check(n int) {
	var mem, runs int64
	waiting, childQueued, queuedAny := 0, false, false
	for _, s := range w.tasks {
		if s.node != n || s.finished {
			continue
		}
		if s.running {
			runs++
			mem += s.req.Ask.Memory
			if s.waits() {
				waiting++
			}
			continue
		}
		queuedAny = true
		if p := s.parent; p != nil && p.node == n && p.running && w.fitsWithAncestors(s) {
			childQueued = true
		}
	}
	b := w.budget[n]
	if b.Memory > 0 && mem > b.Memory || b.Runs > 0 && runs > b.Runs {
		w.t.Fatalf("node %d: %d runs with %s exceed the budget of %d runs with %s", n, runs, formatBytes(mem), b.Runs, formatBytes(b.Memory))
	}
	if runs == 0 && queuedAny {
		w.t.Fatalf("node %d is idle although runs wait: %+v", n, w.nodes[n].Snapshot().Queued)
	}
	// Within the guarantee, subtasks of local parents whose wait is a local one
	// never all stand still.
	if !w.stalls && len(w.nodes) == 1 && runs > 0 && int64(waiting) == runs && childQueued {
		w.t.Fatalf("all %d running runs wait, and no subtask starts: %+v", runs, w.nodes[n].Snapshot())
	}
}

// run lets time pass until everything has ended, or stop says so.
func (w *world) run(stop func() bool) {
	w.settle()
	for idle := 0; w.pending > 0 && !stop(); {
		if len(w.alarms) == 0 {
			// Only a countdown can be left.
			if idle++; !w.stalls || idle > 2 {
				w.t.Fatalf("deadlock with %d tasks open: %s", w.pending, w.describe())
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			w.settle()
			continue
		}
		idle = 0
		next := 0
		for i, a := range w.alarms {
			if a.at.Before(w.alarms[next].at) {
				next = i
			}
		}
		a := w.alarms[next]
		w.alarms = append(w.alarms[:next], w.alarms[next+1:]...)
		time.Sleep(time.Until(a.at))
		synctest.Wait()
		a.do()
		w.settle()
	}
}

func (w *world) describe() (text string) {
	for n, c := range w.nodes {
		s := c.Snapshot()
		text += fmt.Sprintf("\nnode %d: budget %+v used %+v", n, s.Budget, s.Used)
		for _, r := range s.Running {
			text += fmt.Sprintf("\n  runs  %+v", r)
		}
		for _, q := range s.Queued {
			text += fmt.Sprintf("\n  waits %+v", q)
		}
	}
	return text
}

// family makes a random tree of tasks. A subtask never asks for more than its
// parent, which is what a controller expects unless told otherwise.
func (w *world) family(parent *simTask, org int64, depth int, mem int64, equal bool) *simTask {
	w.nextID++
	s := &simTask{
		req:    Request{RunID: w.nextID, TaskID: w.nextID, OrganizationID: org, Arrived: time.Now()},
		node:   w.rng.IntN(len(w.nodes)),
		work:   time.Duration(1+w.rng.IntN(300)) * time.Second,
		parent: parent,
		series: w.rng.IntN(2) == 0,
	}
	s.req.Ask.Memory = mem
	if !equal && parent != nil {
		s.req.Ask.Memory = mem - w.rng.Int64N(mem/2+1)
	}
	if parent != nil {
		s.req.ParentTaskID, s.req.Level = parent.req.TaskID, parent.level()+1
		s.req.OrganizationID = 1000 + int64(parent.node)
	}
	if depth > 0 && w.rng.IntN(10) < 8 {
		for range 1 + w.rng.IntN(4) {
			s.children = append(s.children, w.family(s, org, depth-1, s.req.Ask.Memory, equal))
		}
	}
	return s
}

func (t *simTask) level() int {
	n := 0
	for p := t.parent; p != nil; p = p.parent {
		n++
	}
	return n
}

func seeds(t *testing.T, n uint64) uint64 {
	if testing.Short() {
		return n / 10
	}
	return n
}

func randomBudget(r *rand.Rand) Budget {
	b := memory(int64(4+r.IntN(28))*gib, int64(2+r.IntN(10)))
	if r.IntN(3) == 0 {
		b.Memory = 0
	}
	return b
}

func TestSimulatedFamiliesWithinTheDepthNeverDeadlock(t *testing.T) {
	for seed := range seeds(t, 200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				depth := 1 + int(seed%3)
				w := newWorld(t, seed, 1, randomBudget, Options{Depth: depth, MaxPasses: 1 + int(seed%5)})
				for range 5 + w.rng.IntN(25) {
					mem := int64(1+w.rng.IntN(12)) * gib / 2
					s := w.family(nil, int64(w.rng.IntN(4)), depth, mem, false)
					s.req.Arrived = time.Time{}
					w.after(time.Duration(w.rng.IntN(2000))*time.Second, func() { w.create(s) })
				}
				w.pending++ // as long as not all have arrived
				w.after(2001*time.Second, func() { w.pending-- })
				w.run(func() bool { return false })
				if n := w.nodes[0].Snapshot().Counters.Stalls; n != 0 {
					t.Fatalf("%d stalls within the guarantee", n)
				}
			})
		})
	}
}

func TestSimulatedFamiliesAcrossNodesNeverDeadlock(t *testing.T) {
	for seed := range seeds(t, 100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				depth := 1 + int(seed%3)
				budget := func(r *rand.Rand) Budget { return memory(int64(4+r.IntN(12))*gib, int64(depth+1+r.IntN(6))) }
				w := newWorld(t, seed, 2+int(seed%3), budget, Options{Depth: depth, MaxPasses: 1 + int(seed%5), ChildReserve: Resources{Memory: gib}})
				for range 5 + w.rng.IntN(40) {
					s := w.family(nil, int64(w.rng.IntN(4)), depth, gib, true)
					s.req.Arrived = time.Time{}
					if w.rng.IntN(6) == 0 { // one that needs a whole node
						s.children, s.req.Ask.Memory = nil, w.budget[s.node].Memory
					}
					w.after(time.Duration(w.rng.IntN(2000))*time.Second, func() { w.create(s) })
				}
				w.pending++
				w.after(2001*time.Second, func() { w.pending-- })
				w.run(func() bool { return false })
			})
		})
	}
}

func TestSimulatedNestingBeyondTheDepthAlwaysEnds(t *testing.T) {
	refused := 0
	for seed := range seeds(t, 100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed, 1, randomBudget, Options{Depth: 1})
				w.stalls = true
				for range 5 + w.rng.IntN(15) {
					mem := int64(1+w.rng.IntN(8)) * gib / 2
					w.create(w.family(nil, int64(w.rng.IntN(4)), 4, mem, false))
					w.settle()
				}
				w.run(func() bool { return false })
				refused += int(w.nodes[0].Snapshot().Counters.Stalls)
			})
		})
	}
	if refused == 0 {
		t.Fatal("no seed led to a stall: the test shows nothing")
	}
	t.Logf("%d subtasks refused", refused)
}

// A victim of any size waits while other runs, alone or with subtasks, come
// without end: it must start within a bounded number of starts.
func TestNothingStarvesInAnEndlessStreamOfRuns(t *testing.T) {
	most := 0
	for seed := range seeds(t, 40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory(16*gib, 8)
				w := newWorld(t, seed, 1, func(*rand.Rand) Budget { return b }, Options{MaxPasses: 8})
				var stream func()
				stream = func() {
					s := w.family(nil, int64(w.rng.IntN(3)), 1, int64(1+w.rng.IntN(6))*gib/2, false)
					w.create(s)
					w.after(time.Duration(5+w.rng.IntN(60))*time.Second, stream)
				}
				for range 20 {
					stream()
				}
				victim := w.family(nil, 5, 0, int64(1+w.rng.IntN(16))*gib, true)
				if seed%4 == 0 { // a subtask of a run elsewhere
					victim.req.ParentTaskID, victim.req.Level = 1<<40, 1
				}
				before := 0
				w.after(time.Minute, func() { before = w.admits; w.create(victim) })
				w.run(func() bool { return victim.running || before > 0 && w.admits-before > 400 })
				if !victim.running {
					t.Fatalf("a run of %s did not start: %s", formatBytes(victim.req.Ask.Memory), w.describe())
				}
				most = max(most, w.admits-before)
			})
		})
	}
	t.Logf("at most %d other runs started before", most)
}

// FuzzAnyOrderOfCallsKeepsTheBooks drives a controller with arbitrary calls and
// compares its sums with its runs.
func FuzzAnyOrderOfCallsKeepsTheBooks(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add([]byte{1, 1, 0, 1, 2, 1, 1, 3, 2, 7, 2, 0, 5, 3, 3, 6, 1, 1, 2, 1, 0})
	f.Add([]byte{2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97})
	f.Fuzz(func(t *testing.T, calls []byte) {
		b := Budget{Resources: Resources{Memory: 8 * gib, Devices: map[string]int64{"gpu": 2}}, Runs: 5}
		over := false // restored runs and smaller budgets may exceed it
		c, _ := newController(t, b, Options{Depth: 2, MaxPasses: 2, OnEvent: func(Event) {}})
		for len(calls) >= 3 {
			op, id, size := calls[0], int64(calls[1]%16), int64(calls[2])
			calls = calls[3:]
			q := Request{RunID: id, TaskID: id, ParentTaskID: size % 16, OrganizationID: size % 3, Ask: Resources{Memory: size * gib / 32}}
			if size%5 == 0 {
				q = q.device("gpu", size%3)
			}
			switch op % 8 {
			case 0, 1, 2:
				_ = c.Enqueue(q)
			case 3:
				c.Leave(id)
			case 4:
				over = true
				if _, err := c.Restore(q); err != nil {
					t.Fatal(err)
				}
			case 5:
				_ = c.Update(id, q)
			case 6:
				over = true
				b.Memory, b.Runs = (1+size%16)*gib, size%8
				if err := c.SetBudget(b); err != nil {
					t.Fatal(err)
				}
			case 7:
				if size%2 == 0 {
					c.Pause()
				} else {
					c.Resume()
				}
			}
			checkBooks(t, c, over)
		}
		c.Resume()
		for id := range int64(16) {
			c.Leave(id)
		}
		if s := c.Snapshot(); len(s.Running)+len(s.Queued) != 0 || len(c.families) != 0 || len(c.byTask) != 0 {
			t.Fatalf("left over: %+v", s)
		}
		for d, sizes := range c.foreign.sizes {
			if len(sizes) != 0 || c.foreign.largest[d] != 0 {
				t.Fatalf("left over of subtasks from elsewhere: %+v", c.foreign)
			}
		}
	})
}

func checkBooks(t *testing.T, c *Controller, over bool) {
	t.Helper()
	s := c.Snapshot()
	sum := Budget{Runs: int64(len(s.Running))}
	for _, r := range s.Running {
		sum.Memory += r.Counted.Memory
	}
	if sum.Memory != s.Used.Memory || sum.Runs != s.Used.Runs {
		t.Fatalf("used %+v, sum %+v", s.Used, sum)
	}
	if !over && (sum.Memory > s.Budget.Memory || sum.Runs > s.Budget.Runs) {
		t.Fatalf("over the budget: %+v", s)
	}
	if len(s.Queued) != c.queue.size {
		t.Fatalf("%d queued, %d counted", len(s.Queued), c.queue.size)
	}
	if len(s.Running) == 0 && len(s.Queued) > 0 && !s.Paused {
		t.Fatalf("idle although runs wait: %+v", s)
	}
	for key, f := range c.families {
		n := 0
		for r := range f.members {
			if r.state == queued {
				n++
			}
		}
		if n != f.queued {
			t.Fatalf("family of task %d: %d queued, %d counted", key, n, f.queued)
		}
	}
}
