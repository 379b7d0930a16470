package admission

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Options are the rules that an administrator may change. Zero values mean the
// defaults.
type Options struct {
	// DefaultAsk is what a run counts for in a resource that it has no limit
	// for. Where it is zero too, it is an equal share: the budget divided by
	// its number of runs, or nothing where that is not limited.
	DefaultAsk Resources
	// Depth is how many generations of subtasks room is kept for. Default 1:
	// a run may create subtasks, which create none themselves.
	Depth int
	// ChildReserve is kept free for subtasks of runs on other nodes at least,
	// in addition to the one run slot that always is. Room for subtasks of runs
	// here is kept by their own measure, see Request.Child.
	ChildReserve Resources
	// MaxPasses and MaxPassedFor bound how often and how long, from the first
	// time on, a run may be passed by others. Defaults 16 and 10 minutes.
	MaxPasses    int
	MaxPassedFor time.Duration
	// StallAfter is how long all runs may wait for subtasks that do not fit
	// before one of these is refused. Default 10 minutes.
	StallAfter time.Duration
	// OnEvent is told of every change, in order. It is called with the
	// controller locked: it must not block and must not call the controller.
	OnEvent func(Event)
}

// MaxDepth is the largest Options.Depth.
const MaxDepth = 8

// Defaults of Options.
const (
	DefaultDepth        = 1
	DefaultMaxPasses    = 16
	DefaultMaxPassedFor = 10 * time.Minute
	DefaultStallAfter   = 10 * time.Minute
)

func (o Options) withDefaults() (Options, error) {
	if o.Depth < 0 || o.Depth > MaxDepth {
		return o, fmt.Errorf("%w: a depth of %d is not between 1 and %d", ErrInvalid, o.Depth, MaxDepth)
	}
	if o.MaxPasses < 0 || o.MaxPassedFor < 0 || o.StallAfter < 0 {
		return o, fmt.Errorf("%w: passes, their time and the time of a stall cannot be negative", ErrInvalid)
	}
	if err := o.DefaultAsk.validate(); err != nil {
		return o, err
	}
	if err := o.ChildReserve.validate(); err != nil {
		return o, err
	}
	o.DefaultAsk, o.ChildReserve = o.DefaultAsk.clone(), o.ChildReserve.clone()
	if o.Depth == 0 {
		o.Depth = DefaultDepth
	}
	if o.MaxPasses == 0 {
		o.MaxPasses = DefaultMaxPasses
	}
	if o.MaxPassedFor == 0 {
		o.MaxPassedFor = DefaultMaxPassedFor
	}
	if o.StallAfter == 0 {
		o.StallAfter = DefaultStallAfter
	}
	return o, nil
}

// Controller holds the queue and what is admitted. Its methods may be called
// from any goroutine. It has no goroutine of its own, but a timer: Close ends it.
type Controller struct {
	opt   Options
	depth int

	mu       sync.Mutex
	budget   Budget
	scale    *scale
	defaults vector // what a run without limits counts for
	floor    vector // Options.ChildReserve
	runs     map[int64]*run
	running  map[*run]struct{}
	byTask   map[int64]*run    // admitted
	families map[int64]*family // by parent task
	foreign  *foreign
	queue    *accounts
	pausing  bool
	holds    int // see Hold
	closed   bool
	count    Counters

	stall        *time.Timer // runs while stalled
	stalledSince time.Time
}

// New makes a controller with an empty queue.
func New(b Budget, o Options) (*Controller, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Controller{
		opt: o, depth: o.Depth,
		runs: make(map[int64]*run), running: make(map[*run]struct{}), byTask: make(map[int64]*run),
		families: make(map[int64]*family), queue: newAccounts(),
	}
	c.setBudget(b)
	return c, nil
}

// Close refuses all that is queued with ErrClosed. Releases stay harmless.
func (c *Controller) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.stall != nil {
		c.stall.Stop()
		c.stall = nil
	}
	for _, r := range c.runs {
		if r.state == queued {
			c.refuse(r, fmt.Errorf("run %d did not start: %w", r.RunID, ErrClosed))
		}
	}
}

// Enqueue puts a run into the queue, where it may be admitted at once. Whoever
// enqueues a run calls Wait or Leave for it. ErrNeverFits says with a sentence
// that the run cannot start whatever ends before; ErrKnown that it is queued or
// admitted already.
func (c *Controller) Enqueue(q Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if old := c.runs[q.RunID]; old != nil && old.state != refused {
		return fmt.Errorf("run %d: %w", q.RunID, ErrKnown)
	}
	r, err := c.newRun(q)
	if err != nil {
		return err
	}
	c.place(r)
	if err := c.checkFits(r); err != nil {
		c.unplace(r)
		c.count.Refused++
		c.tell(Refused, r, err)
		return err
	}
	c.runs[r.RunID] = r
	c.queue.insert(r)
	c.seen(r)
	c.count.Enqueued++
	c.tell(Queued, r, nil)
	c.dispatch()
	return nil
}

// Wait blocks until the run is admitted and returns the function that gives its
// resources back, which may be called more than once. When ctx ends first, the
// run leaves the queue and holds nothing. A run that was refused while it was
// queued (ErrNeverFits after the budget was made smaller, ErrStalled,
// ErrClosed) returns the sentence.
func (c *Controller) Wait(ctx context.Context, runID int64) (release func(), err error) {
	c.mu.Lock()
	r := c.runs[runID]
	c.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("run %d: %w", runID, ErrUnknown)
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		c.leave(r)
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.err != nil {
		if c.runs[runID] == r {
			delete(c.runs, runID)
		}
		return nil, r.err
	}
	return func() { c.leave(r) }, nil
}

// Leave takes a run out of the queue or gives back what it holds. It does
// nothing for a run that is not known.
func (c *Controller) Leave(runID int64) {
	c.mu.Lock()
	r := c.runs[runID]
	c.mu.Unlock()
	if r != nil {
		c.leave(r)
	}
}

func (c *Controller) leave(r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.state {
	case queued:
		r.err = fmt.Errorf("run %d has left the queue: %w", r.RunID, ErrUnknown)
		c.queue.remove(r)
		c.unplace(r)
		close(r.done)
		c.count.Left++
		c.tell(Left, r, nil)
	case admitted:
		delete(c.running, r)
		if c.byTask[r.TaskID] == r {
			delete(c.byTask, r.TaskID)
		}
		c.unplace(r)
		c.count.Released++
		c.tell(Released, r, nil)
	case gone:
		return
	}
	r.state = gone
	if c.runs[r.RunID] == r {
		delete(c.runs, r.RunID)
	}
	if c.closed {
		return
	}
	if len(c.running) == 0 && c.queue.size == 0 {
		c.queue.forget()
	}
	c.dispatch()
}

// Restore counts a run that was started before this controller was made. It is
// admitted whatever the budget says. A run that is admitted already stays as
// it is; a queued one leaves the queue. Only a request that makes no sense is
// an error.
func (c *Controller) Restore(q Request) (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.runs[q.RunID]
	switch {
	case r != nil && r.state == admitted:
		return func() { c.leave(r) }, nil
	case r != nil && r.state == queued:
		c.queue.remove(r)
	default:
		if r, err = c.newRun(q); err != nil {
			return nil, err
		}
		c.place(r)
		c.runs[r.RunID] = r
	}
	c.enter(r, time.Now())
	c.seen(r)
	c.count.Restored++
	c.tell(Restored, r, nil)
	if !c.closed {
		c.dispatch() // a subtask of it may start now where others wait for it
	}
	return func() { c.leave(r) }, nil
}

// Update changes what a run asks for, from now on. A queued run keeps its
// place; what would never fit is not taken over (ErrNeverFits). What a running
// run asks for can be lowered at any time and raised where there is room
// (ErrNoRoom): call it before the limit is raised, and after it was lowered.
func (c *Controller) Update(runID int64, q Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.runs[runID]
	if r == nil || r.state != queued && r.state != admitted {
		return fmt.Errorf("run %d: %w", runID, ErrUnknown)
	}
	if err := q.validate(); err != nil {
		return err
	}
	old := r.Request
	c.resize(r, q.Ask, q.Child)
	err := c.checkFits(r)
	if err == nil && r.state == admitted {
		err = c.checkGrowth(r, old)
	}
	if err != nil {
		c.resize(r, old.Ask, old.Child)
		return err
	}
	c.seen(r)
	c.tell(Updated, r, nil)
	c.dispatch()
	return nil
}

// checkGrowth tells whether an admitted run may have what it asks for now.
func (c *Controller) checkGrowth(r *run, old Request) error {
	before, _ := c.amounts(old.Ask)
	grown := false
	for d, n := range r.ask {
		grown = grown || n > before[d]
	}
	if !grown {
		return nil
	}
	s := c.shortage(r, c.measure(func(o *run) bool { return o != r }))
	if s.kind == none {
		return nil
	}
	return fmt.Errorf("the limits of run %d were not raised: it would take %s, with %s; wait for other runs to end: %w",
		r.RunID, c.scale.amount(s.dim, r.ask[s.dim]), c.explainFree(s), ErrNoRoom)
}

// Pause keeps everything queued, except subtasks of runs that run here: these
// could not end without them. Resume ends that.
func (c *Controller) Pause() { c.setPaused(true) }

// Paused tells whether the controller is paused.
func (c *Controller) Paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pausing
}

// Resume ends a pause.
func (c *Controller) Resume() { c.setPaused(false) }

func (c *Controller) setPaused(p bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pausing == p || c.closed {
		return
	}
	c.pausing = p
	if p {
		c.tell(Paused, nil, nil)
		return
	}
	c.tell(Resumed, nil, nil)
	c.dispatch()
}

// SetBudget changes the budget. Running runs go on even if they are over it
// now; queued ones that can no longer fit at all are refused with ErrNeverFits.
func (c *Controller) SetBudget(b Budget) error {
	if err := b.Validate(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.setBudget(b)
	c.tell(BudgetChanged, nil, nil)
	for _, r := range c.runs {
		if r.state == queued {
			if err := c.checkFits(r); err != nil {
				c.refuse(r, err)
			}
		}
	}
	c.dispatch()
	return nil
}

func (c *Controller) setBudget(b Budget) {
	b.Devices = maps.Clone(b.Devices)
	c.budget, c.scale = b, newScale(b)
	c.defaults = c.share(b)
	c.floor, _ = c.scale.vector(c.opt.ChildReserve, 1)
	for d := range c.floor {
		c.floor[d] = min(c.floor[d], c.scale.limit[d])
	}
	c.floor[dimRuns] = min(1, c.scale.limit[dimRuns]-1)
	c.foreign = newForeign(c.scale)
	for _, r := range c.runs {
		if r.state != queued && r.state != admitted {
			continue
		}
		c.setAsk(r)
		r.seen = nil
		if r.foreign {
			c.foreign.add(r.ask)
		}
	}
	for _, r := range c.runs {
		if r.state == queued || r.state == admitted {
			c.expect(r)
			c.seen(r)
		}
	}
}

// share is what a run counts for in resources that it has no limit for.
func (c *Controller) share(b Budget) vector {
	v, _ := c.scale.vector(Resources{Memory: c.opt.DefaultAsk.Memory, MilliCPUs: c.opt.DefaultAsk.MilliCPUs, Pids: c.opt.DefaultAsk.Pids}, 1)
	for d := dimMemory; d <= dimPids; d++ {
		if v[d] == 0 && b.Runs > 0 && c.scale.limit[d] < unlimited {
			v[d] = c.scale.limit[d] / b.Runs
		}
		v[d] = min(v[d], c.scale.limit[d])
	}
	return v
}
