package admission

import (
	"cmp"
	"slices"
)

// accounts holds the queued runs by the organization that they count to, and
// decides whose turn it is. It is start-time fair queueing: each start advances
// the organization's clock by the share of the budget that the run asks for,
// and the organization with the lowest clock is next. An organization that
// comes back starts at the clock of the others, so that it neither saves up
// turns nor waits behind another's flood; and no clock is ever ahead of the
// others by more than one run.
type accounts struct {
	by    map[int64]*account
	clock float64 // the highest clock at which a run was started
	size  int
	heads []cursor // reused by walk
}

type account struct {
	clock   float64
	runs    []*run // in order
	resumed bool   // has its clock from before a restart, and did not queue since
}

type cursor struct {
	clock float64
	rest  []*run
}

func newAccounts() *accounts { return &accounts{by: make(map[int64]*account)} }

func (a *accounts) insert(r *run) {
	acc := a.by[r.account]
	if acc == nil {
		acc = &account{}
		a.by[r.account] = acc
	}
	if len(acc.runs) == 0 && !acc.resumed {
		acc.clock = max(acc.clock, a.clock)
	}
	acc.resumed = false
	i, _ := slices.BinarySearchFunc(acc.runs, r, (*run).before)
	acc.runs = slices.Insert(acc.runs, i, r)
	a.size++
}

func (a *accounts) remove(r *run) {
	acc := a.by[r.account]
	i, _ := slices.BinarySearchFunc(acc.runs, r, (*run).before)
	acc.runs = slices.Delete(acc.runs, i, i+1)
	a.size--
	if len(acc.runs) == 0 && acc.clock <= a.clock {
		delete(a.by, r.account)
	}
}

// forget ends all debts, when nothing runs and nothing waits.
func (a *accounts) forget() {
	clear(a.by)
	a.clock = 0
}

// charge advances the clocks for a run that starts. It is called before remove.
func (a *accounts) charge(r *run) {
	acc := a.by[r.account]
	a.clock = max(a.clock, acc.clock)
	acc.clock += r.cost
}

// walk visits the queued runs in the order of their turns until visit returns
// false, as if each were started when visited.
func (a *accounts) walk(visit func(*run) bool) {
	h := a.heads[:0]
	for _, acc := range a.by {
		if len(acc.runs) > 0 {
			h = append(h, cursor{acc.clock, acc.runs})
		}
	}
	slices.SortFunc(h, cursor.compare) // a sorted slice is a heap
	a.heads = h
	for len(h) > 0 {
		r := h[0].rest[0]
		if !visit(r) {
			break
		}
		h[0].clock += r.cost
		h[0].rest = h[0].rest[1:]
		if len(h[0].rest) == 0 {
			h[0] = h[len(h)-1]
			h = h[:len(h)-1]
		}
		sift(h)
	}
	clear(a.heads) // holds no run longer than the queue does
}

func (c cursor) compare(o cursor) int {
	if c.clock != o.clock {
		return cmp.Compare(c.clock, o.clock)
	}
	a, b := c.rest[0], o.rest[0]
	if n := a.Arrived.Compare(b.Arrived); n != 0 {
		return n
	}
	return cmp.Compare(a.RunID, b.RunID)
}

// sift restores the heap after its first element grew.
func sift(h []cursor) {
	for i := 0; ; {
		least := i
		for k := 2*i + 1; k <= 2*i+2 && k < len(h); k++ {
			if h[k].compare(h[least]) < 0 {
				least = k
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
