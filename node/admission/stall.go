package admission

import (
	"fmt"
	"time"
)

// allWait tells whether every admitted run has a subtask here that is queued,
// or one that runs and itself waits so.
func (c *Controller) allWait() bool {
	if len(c.running) == 0 {
		return false
	}
	waiting := make(map[*run]struct{}, len(c.running))
	for r := range c.running {
		if f := c.families[r.TaskID]; f == nil || f.queued == 0 {
			continue
		}
		waiting[r] = struct{}{}
		for _, p := range c.ancestors(r) {
			waiting[p] = struct{}{}
		}
	}
	return len(waiting) == len(c.running)
}

// watchStall starts or ends the countdown to the refusal of a subtask. It is
// called when nothing more can start.
func (c *Controller) watchStall() {
	stalled := c.queue.size > 0 && c.allWait()
	switch {
	case stalled && c.stall == nil:
		c.stall = time.AfterFunc(c.opt.StallAfter, c.breakStall)
		c.stalledSince = time.Now()
	case !stalled && c.stall != nil:
		c.stall.Stop()
		c.stall = nil
	}
}

// breakStall refuses the newest subtask that a running run waits for.
func (c *Controller) breakStall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.stall == nil || time.Since(c.stalledSince) < c.opt.StallAfter {
		return // ended while the timer fired, or a newer one runs
	}
	c.stall = nil
	var newest *run
	for r := range c.running {
		f := c.families[r.TaskID]
		if f == nil || f.queued == 0 {
			continue
		}
		for k := range f.members {
			if k.state == queued && (newest == nil || newest.before(k) < 0) {
				newest = k
			}
		}
	}
	if newest == nil {
		return
	}
	s := c.shortage(newest, c.measure(nil))
	c.count.Stalls++
	c.refuse(newest, fmt.Errorf("run %d %w: for %s all %d running runs have been waiting for subtasks that do not fit beside them (this one asks for %s, %s free of %s); "+
		"allow fewer runs at the same time, or raise the depth or the size of the room kept for subtasks", newest.RunID, ErrStalled, c.opt.StallAfter, len(c.running),
		c.scale.amount(s.dim, newest.ask[s.dim]), c.scale.format(s.dim, s.free), c.scale.format(s.dim, c.scale.limit[s.dim])))
	c.dispatch()
}
