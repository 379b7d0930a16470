package admission

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Snapshot is the state of a controller at one moment.
type Snapshot struct {
	Budget   Budget    `json:"budget"`
	Used     Budget    `json:"used"` // may exceed the budget after Restore or SetBudget
	Paused   bool      `json:"paused"`
	Running  []Running `json:"running"`
	Queued   []Waiting `json:"queued"` // in the order of their turns
	Counters Counters  `json:"counters"`
}

// Running is an admitted run.
type Running struct {
	RunID          int64     `json:"run_id"`
	TaskID         int64     `json:"task_id"`
	OrganizationID int64     `json:"organization_id"` // to which it counts
	Level          int       `json:"level"`
	Since          time.Time `json:"since"`
	Counted        Resources `json:"counted"` // what it takes of the budget
}

// Waiting is a queued run.
type Waiting struct {
	RunID          int64     `json:"run_id"`
	TaskID         int64     `json:"task_id"`
	OrganizationID int64     `json:"organization_id"` // to which it counts
	Level          int       `json:"level"`
	Position       int       `json:"position"` // 1 is next
	Since          time.Time `json:"since"`    // its arrival
	Counted        Resources `json:"counted"`
	Passes         int       `json:"passes"` // how often another run went first
	Reason         string    `json:"reason"` // a sentence
}

// Snapshot describes everything that runs and waits.
func (c *Controller) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.newPass()
	s := Snapshot{Budget: c.budget, Paused: c.pausing, Counters: c.count,
		Running: make([]Running, 0, len(c.running)), Queued: make([]Waiting, 0, c.queue.size)}
	s.Budget.Resources = s.Budget.clone()
	s.Used.Resources, s.Used.Runs = c.scale.resources(p.use.total())
	for r := range c.running {
		counted, _ := c.scale.resources(r.ask)
		s.Running = append(s.Running, Running{RunID: r.RunID, TaskID: r.TaskID, OrganizationID: r.account, Level: r.level, Since: r.started, Counted: counted})
	}
	slices.SortFunc(s.Running, func(a, b Running) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.RunID, b.RunID))
	})
	c.queue.walk(func(r *run) bool {
		counted, _ := c.scale.resources(r.ask)
		ahead := len(s.Queued)
		s.Queued = append(s.Queued, Waiting{
			RunID: r.RunID, TaskID: r.TaskID, OrganizationID: r.account, Level: r.level, Position: ahead + 1,
			Since: r.Arrived, Counted: counted, Passes: r.passes, Reason: c.explain(r, p.judge(r), ahead),
		})
		return true
	})
	return s
}

// explain says in one sentence why a run waits.
func (c *Controller) explain(r *run, v verdict, ahead int) string {
	var why string
	switch v.kind {
	case mayStart:
		why = "waiting for its turn"
	case paused:
		why = "waiting for the node to be resumed"
	case barred:
		why = fmt.Sprintf("waiting behind run %d, for which room is being kept", v.by.RunID)
	case lacks:
		s, d := c.scale, v.short.dim
		asked := s.format(d, r.ask[d]) + " asked, "
		if d == dimRuns {
			asked = ""
		}
		why = "waiting for " + s.name(d) + ": " + asked + c.explainFree(v.short)
	}
	if ahead == 1 {
		return why + "; 1 run ahead"
	}
	return fmt.Sprintf("%s; %d runs ahead", why, ahead)
}

// explainFree says what is free of the resource that s is about.
func (c *Controller) explainFree(s shortage) string {
	text := fmt.Sprintf("%s free of %s", c.scale.format(s.dim, s.free), c.scale.format(s.dim, c.scale.limit[s.dim]))
	if s.kind == kept {
		text += " and kept for subtasks"
	}
	return text
}
