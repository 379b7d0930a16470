package admission

import "slices"

// usage is what a set of admitted runs takes.
type usage struct {
	runs []*run
	// upTo[l] is what the runs of the levels 0 to l ask for together.
	upTo []vector
	// child is the largest subtask that one of the runs that may have some is
	// expected to create, resource by resource.
	child vector
}

// measure adds up the admitted runs that keep names, all if it is nil.
func (c *Controller) measure(keep func(*run) bool) *usage {
	u := &usage{upTo: make([]vector, c.depth+1), child: c.scale.zero()}
	for l := range u.upTo {
		u.upTo[l] = c.scale.zero()
	}
	for r := range c.running {
		if keep != nil && !keep(r) {
			continue
		}
		u.runs = append(u.runs, r)
		u.upTo[r.level].add(r.ask)
		if c.mayHaveSubtasks(r) {
			u.child.raise(r.child)
		}
	}
	for l := 1; l <= c.depth; l++ {
		u.upTo[l].add(u.upTo[l-1])
	}
	return u
}

func (u *usage) total() vector { return u.upTo[len(u.upTo)-1] }

// mayHaveSubtasks tells which runs room is kept for.
func (c *Controller) mayHaveSubtasks(r *run) bool { return r.level < c.depth }

// maxAncestors bounds a walk to the root, against a server that names a run its
// own ancestor.
const maxAncestors = 64

// parent returns the admitted run of r's parent task, nil if there is none here.
func (c *Controller) parent(r *run) *run {
	if r.ParentTaskID == 0 {
		return nil
	}
	return c.byTask[r.ParentTaskID]
}

// ancestors returns the admitted ancestors of r.
func (c *Controller) ancestors(r *run) []*run {
	var line []*run
	for p := c.parent(r); p != nil && len(line) < maxAncestors; p = c.parent(p) {
		line = append(line, p)
	}
	return line
}

// alone tells whether nothing but ancestors of r are among the runs of u. These
// wait for r, or else nobody does: r may use whatever they leave.
func (c *Controller) alone(r *run, u *usage) bool {
	if len(u.runs) == 0 {
		return true
	}
	if len(u.runs) > maxAncestors || c.parent(r) == nil {
		return false
	}
	line := c.ancestors(r)
	return !slices.ContainsFunc(u.runs, func(o *run) bool { return !slices.Contains(line, o) })
}

// shortage says what keeps a run from starting.
type shortage struct {
	kind shortageKind
	dim  int
	free int64 // what nobody takes of the resource
}

type shortageKind int

const (
	none     shortageKind = iota
	occupied              // others take it
	kept                  // it is free, but kept for subtasks
)

// shortage tells whether r may join the runs of u, and if not, why.
func (c *Controller) shortage(r *run, u *usage) shortage {
	if !c.alone(r, u) {
		return c.levelShortage(r, u)
	}
	total := u.total()
	for d, n := range r.ask {
		if n > 0 && total[d]+n > c.scale.limit[d] {
			return c.shortOf(r, u, d)
		}
	}
	return shortage{}
}

// levelShortage is shortage by the rule of the levels only.
func (c *Controller) levelShortage(r *run, u *usage) shortage {
	local := c.parent(r) != nil
	for l := c.depth; l >= r.level; l-- {
		for d := range r.ask {
			limit, counts := c.levelLimit(r, u, l, d, local)
			if counts && u.upTo[l][d]+r.ask[d] > limit {
				return c.shortOf(r, u, d)
			}
		}
	}
	return shortage{}
}

// levelLimit is how much of resource d the runs of the levels 0 to l may take
// together when r joins those of u. counts is false where that does not depend
// on r.
//
// Room for the subtasks of the runs here is a condition of every admission, as
// the proof in the package comment wants it. Room for the subtasks of runs
// elsewhere holds up only what is not itself a subtask of a run here, and only
// in resources that r would take.
func (c *Controller) levelLimit(r *run, u *usage, l, d int, local bool) (limit int64, counts bool) {
	keep := u.child[d]
	if c.mayHaveSubtasks(r) {
		keep = max(keep, r.child[d])
	}
	if r.ask[d] == 0 {
		counts = keep > 0 && l < c.depth
	} else {
		counts = true
		if !local {
			keep = max(keep, c.foreign.largest[d], c.floor[d])
		}
	}
	return c.scale.limit[d] - int64(c.depth-l)*keep, counts
}

func (c *Controller) shortOf(r *run, u *usage, d int) shortage {
	s := shortage{kind: occupied, dim: d, free: max(c.scale.limit[d]-u.total()[d], 0)}
	if s.free >= r.ask[d] {
		s.kind = kept
	}
	return s
}

// neverFits returns the first resource of which r asks for more than the budget
// has beside r's own ancestors, and what these take.
func (c *Controller) neverFits(r *run) (dim int, held int64, yes bool) {
	line := c.ancestors(r)
	for d, n := range r.ask {
		held = 0
		for _, p := range line {
			held += p.ask[d]
		}
		if n > 0 && held+n > c.scale.limit[d] {
			return d, held, true
		}
	}
	return 0, 0, false
}
