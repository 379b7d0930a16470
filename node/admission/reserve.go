package admission

import "time"

// maxReservations bounds for how many overdue runs room is kept at the same
// time. One is enough that nothing starves; more keep several long waiters of
// different resources moving.
const maxReservations = 8

// overdue tells whether r has been passed so often or for so long that what it
// needs is to be kept for it.
func (c *Controller) overdue(r *run, now time.Time) bool {
	return r.passes >= c.opt.MaxPasses || !r.passedSince.IsZero() && now.Sub(r.passedSince) >= c.opt.MaxPassedFor
}

// reservation is the room kept for one overdue run that does not fit.
type reservation struct {
	run *run
	// empty is set if the run can start only when it is alone.
	empty bool
	// waits is set if the run would not fit either after all runs without
	// subtasks had ended: a run that may have subtasks has to end first, and
	// may need these, here or elsewhere, to get there.
	waits bool
}

func (c *Controller) reserve(r *run) reservation {
	line := c.measure(func(o *run) bool {
		for _, p := range c.ancestors(r) {
			if p == o {
				return true
			}
		}
		return false
	})
	return reservation{
		run:   r,
		empty: c.levelShortage(r, line).kind != none,
		waits: c.shortage(r, c.measure(c.mayHaveSubtasks)).kind != none,
	}
}

// bars tells whether x, which fits, must not start because of the reservation.
func (c *Controller) bars(v reservation, x *run, u *usage, stalled bool) bool {
	if x.level > 0 && (v.waits || stalled) {
		return false
	}
	return v.empty || c.delays(x, v.run, u)
}

// delays tells whether h, which does not fit now, could not start beside x at
// the moment when just enough for h has become free.
func (c *Controller) delays(x, h *run, u *usage) bool {
	local := c.parent(h) != nil
	var child vector
	if c.mayHaveSubtasks(x) {
		child = x.child
	}
	for d := range h.ask {
		// What has to become free among the runs of the levels up to l is then
		// free in all sums over more levels too.
		var deficit int64
		for l := h.level; l <= c.depth; l++ {
			limit, counts := c.levelLimit(h, u, l, d, local)
			if !counts {
				continue
			}
			then := u.upTo[l][d] + h.ask[d]
			deficit = max(deficit, then-limit)
			then -= deficit
			more := int64(0)
			if l >= x.level {
				more = x.ask[d]
			}
			if child != nil {
				limit = min(limit, c.scale.limit[d]-int64(c.depth-l)*child[d])
			}
			if more > 0 && then+more > limit || child != nil && then > limit {
				return true
			}
		}
	}
	return false
}
