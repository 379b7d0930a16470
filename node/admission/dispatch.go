package admission

import "time"

// window is how many queued runs are looked at for one start. Whoever is
// further back has that many before it in the order of turns; its time comes
// when they have started. A stall looks at all.
const window = 1000

// dispatch starts whatever may start. The lock is held.
func (c *Controller) dispatch() {
	for c.startOne() {
	}
	c.watchStall()
}

// startOne admits the first run in the order of turns that may start now.
func (c *Controller) startOne() bool {
	if c.holds > 0 || c.queue.size == 0 || int64(len(c.running)) >= c.scale.limit[dimRuns] {
		return false
	}
	if c.pausing && !c.awaited() {
		return false
	}
	p := c.newPass()
	var chosen *run
	looked := 0
	c.queue.walk(func(r *run) bool {
		if looked++; looked > window && !p.stalled {
			return false
		}
		if p.judge(r).kind == mayStart {
			chosen = r
			return false
		}
		return true
	})
	if chosen == nil {
		return false
	}
	for _, r := range p.blocked {
		if r.passes++; r.passedSince.IsZero() {
			r.passedSince = p.now
		}
	}
	if len(p.blocked) > 0 {
		c.count.Backfilled++
	}
	c.admit(chosen, p.now)
	return true
}

// awaited tells whether a subtask of a run that runs here is queued.
func (c *Controller) awaited() bool {
	for r := range c.running {
		if f := c.families[r.TaskID]; f != nil && f.queued > 0 {
			return true
		}
	}
	return false
}

// pass is one look at the queue in the order of turns.
type pass struct {
	c       *Controller
	now     time.Time
	use     *usage
	stalled bool
	blocked []*run // those seen that did not fit
	keeping []reservation
}

func (c *Controller) newPass() *pass {
	return &pass{c: c, now: time.Now(), use: c.measure(nil), stalled: c.allWait()}
}

// verdict is what a pass finds about one run.
type verdict struct {
	kind  verdictKind
	short shortage // for lacks
	by    *run     // for barred
}

type verdictKind int

const (
	mayStart verdictKind = iota
	lacks
	barred
	paused
)

// judge decides about the next run in the order of turns.
func (p *pass) judge(r *run) verdict {
	c := p.c
	if c.pausing && c.parent(r) == nil {
		return verdict{kind: paused}
	}
	if s := c.shortage(r, p.use); s.kind != none {
		p.blocked = append(p.blocked, r)
		if len(p.keeping) < maxReservations && c.overdue(r, p.now) {
			p.keeping = append(p.keeping, c.reserve(r))
		}
		return verdict{kind: lacks, short: s}
	}
	for _, v := range p.keeping {
		if c.bars(v, r, p.use, p.stalled) {
			return verdict{kind: barred, by: v.run}
		}
	}
	return verdict{}
}

// shareOf is the share of the budget that an amount is, by which the clock of a
// run's organization advances.
func (c *Controller) shareOf(ask vector) float64 {
	share := 1.0 / maxRuns
	for d, n := range ask {
		if n > 0 {
			share = max(share, float64(n)/float64(c.scale.limit[d]))
		}
	}
	return share
}
