package admission

import (
	"fmt"
	"time"
)

func (q *Request) validate() error {
	if q.Level < 0 {
		return fmt.Errorf("%w: run %d has a negative level", ErrInvalid, q.RunID)
	}
	if err := q.Ask.validate(); err != nil {
		return fmt.Errorf("run %d: %w", q.RunID, err)
	}
	if q.Child != nil {
		if err := q.Child.validate(); err != nil {
			return fmt.Errorf("a subtask of run %d: %w", q.RunID, err)
		}
	}
	return nil
}

func (c *Controller) newRun(q Request) (*run, error) {
	if err := q.validate(); err != nil {
		return nil, err
	}
	q.Ask = q.Ask.clone()
	if q.Child != nil {
		child := q.Child.clone()
		q.Child = &child
	}
	if q.ParentTaskID == q.TaskID {
		q.ParentTaskID = 0
	}
	if now := time.Now(); q.Arrived.IsZero() || q.Arrived.After(now) {
		q.Arrived = now
	}
	return &run{Request: q, done: make(chan struct{})}, nil
}

// amounts fills in what a run without limits counts for.
func (c *Controller) amounts(r Resources) (v vector, unknownDevice string) {
	v, unknownDevice = c.scale.vector(r, 1)
	for d := dimMemory; d <= dimPids; d++ {
		if v[d] == 0 {
			v[d] = c.defaults[d]
		}
	}
	return v, unknownDevice
}

func (c *Controller) setAsk(r *run) {
	r.ask, _ = c.amounts(r.Ask)
	r.cost = c.shareOf(r.ask)
}

// place finds where a run that is to be queued stands among the others: its
// family, its level, the organization that it counts to, and what it and its
// subtasks ask for.
func (c *Controller) place(r *run) {
	if r.ParentTaskID != 0 {
		f := c.families[r.ParentTaskID]
		if f == nil {
			f = &family{members: make(map[*run]struct{})}
			c.families[r.ParentTaskID] = f
		}
		f.members[r] = struct{}{}
		f.queued++
	}
	r.account, r.level = r.OrganizationID, r.Level
	if r.ParentTaskID != 0 {
		r.level = max(r.level, 1)
	}
	r.level = min(r.level, c.depth)
	c.setAsk(r)
	c.expect(r)
	if p := c.parent(r); p != nil {
		c.follow(r, p)
	} else if r.ParentTaskID != 0 {
		r.foreign = true
		c.foreign.add(r.ask)
	}
}

// follow makes r a subtask of the admitted run p.
func (c *Controller) follow(r, p *run) {
	r.account, r.level, r.first = p.account, min(max(r.level, p.level+1), c.depth), true
}

// unplace takes a run out of its family, before its state changes.
func (c *Controller) unplace(r *run) {
	if r.foreign {
		r.foreign = false
		c.foreign.remove(r.ask)
	}
	if f := c.families[r.ParentTaskID]; f != nil {
		delete(f.members, r)
		if r.state == queued {
			f.queued--
		}
		if len(f.members) == 0 {
			delete(c.families, r.ParentTaskID)
		}
	}
}

// enter makes a run that is placed and not in the queue an admitted one.
func (c *Controller) enter(r *run, now time.Time) {
	if f := c.families[r.ParentTaskID]; f != nil {
		f.queued--
	}
	r.state, r.started = admitted, now
	c.running[r] = struct{}{}
	if r.TaskID != 0 && c.byTask[r.TaskID] == nil {
		c.byTask[r.TaskID] = r
		c.gather(r, 0)
	}
	close(r.done)
}

// gather tells the subtasks of p that were known before p was admitted, as
// happens after a restart, whose they are.
func (c *Controller) gather(p *run, generation int) {
	f := c.families[p.TaskID]
	if f == nil || generation >= maxAncestors {
		return
	}
	for r := range f.members {
		if r.foreign {
			r.foreign = false
			c.foreign.remove(r.ask)
		}
		account, level := r.account, r.level
		if r.state == queued && c.runs[r.RunID] == r {
			c.queue.remove(r)
			c.follow(r, p)
			c.queue.insert(r)
		} else {
			c.follow(r, p)
		}
		c.seen(r)
		if c.byTask[r.TaskID] == r && (r.account != account || r.level != level) {
			c.gather(r, generation+1)
		}
	}
}

// expect derives what a subtask of r may ask for. More than r itself leaves of
// the budget could never start and needs no room.
func (c *Controller) expect(r *run) {
	if r.child == nil || len(r.child) != len(r.ask) {
		r.child = c.scale.zero()
	}
	copy(r.child, r.ask)
	if r.Child != nil {
		r.child, _ = c.amounts(*r.Child)
	}
	if r.seen != nil {
		r.child.raise(r.seen)
	}
	for d := range r.child {
		r.child[d] = max(0, min(r.child[d], c.scale.limit[d]-r.ask[d]))
	}
}

// seen makes r's parent expect more subtasks of r's size.
func (c *Controller) seen(r *run) {
	p := c.parent(r)
	if p == nil {
		return
	}
	if p.seen == nil {
		p.seen = c.scale.zero()
	}
	p.seen.raise(r.ask)
	c.expect(p)
}

// resize changes what r asks for.
func (c *Controller) resize(r *run, ask Resources, child *Resources) {
	if r.foreign {
		c.foreign.remove(r.ask)
	}
	r.Ask, r.Child = ask.clone(), nil
	if child != nil {
		copied := child.clone()
		r.Child = &copied
	}
	c.setAsk(r)
	c.expect(r)
	if r.foreign {
		c.foreign.add(r.ask)
	}
}

// admit starts a queued run.
func (c *Controller) admit(r *run, now time.Time) {
	c.queue.charge(r)
	c.queue.remove(r)
	c.enter(r, now)
	c.count.Admitted++
	c.tell(Admitted, r, nil)
}

// refuse takes a run out of the queue for good. Wait returns the reason.
func (c *Controller) refuse(r *run, reason error) {
	c.queue.remove(r)
	c.unplace(r)
	r.state, r.err = refused, reason
	close(r.done)
	c.count.Refused++
	c.tell(Refused, r, reason)
}

// checkFits returns ErrNeverFits with a sentence for a run that cannot start
// whatever ends before.
func (c *Controller) checkFits(r *run) error {
	if _, device := c.amounts(r.Ask); device != "" {
		return fmt.Errorf("run %d %w: it asks for %d %s and the budget has none; ask for fewer or add the device to the budget",
			r.RunID, ErrNeverFits, r.Ask.Devices[device], device)
	}
	d, held, yes := c.neverFits(r)
	if !yes {
		return nil
	}
	s := c.scale
	asks := s.amount(d, r.ask[d])
	if held > 0 {
		return fmt.Errorf("run %d %w: it asks for %s, the budget has %s, and the runs that wait for it hold %s of that until it has ended; lower the limits of these runs or raise the budget",
			r.RunID, ErrNeverFits, asks, s.format(d, s.limit[d]), s.format(d, held))
	}
	return fmt.Errorf("run %d %w: it asks for %s and the budget has %s; lower its limit or raise the budget",
		r.RunID, ErrNeverFits, asks, s.format(d, s.limit[d]))
}
