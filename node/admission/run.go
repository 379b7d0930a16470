package admission

import (
	"cmp"
	"time"
)

// Request is a run that wants to start.
type Request struct {
	RunID  int64
	TaskID int64
	JobID  int64
	// ParentTaskID is the task whose algorithm created this run's task, 0 for
	// none. That task may run on this node or elsewhere.
	ParentTaskID int64
	// OrganizationID is the initiating organization, to which the run counts.
	// A subtask of a run that runs here counts to the organization of that
	// run, because the server names the node's own organization for it.
	OrganizationID int64
	// Arrived orders the runs of an organization; zero means now.
	Arrived time.Time
	// Level is how many ancestors the run's task has, where the caller knows
	// better than what can be seen here; 0 lets the controller find out: a
	// subtask has the level of its parent plus one, or 1 if the parent does
	// not run here.
	Level int

	// Ask is what the run is limited to. Memory, CPUs or pids of zero, a run
	// without such a limit, count as Options.DefaultAsk.
	Ask Resources
	// Child is what one subtask of this run would ask for on this node; nil
	// means the same as the run itself, since the server demands the same
	// image of both.
	Child *Resources
}

type runState int

const (
	queued runState = iota
	admitted
	refused
	gone
)

// run is a request in the controller. All of it is guarded by the controller's
// lock, except done, which is closed when the run leaves the queue.
type run struct {
	Request
	state   runState
	done    chan struct{}
	err     error // why it was refused
	started time.Time

	account int64 // the organization it counts to
	level   int
	first   bool    // a subtask of a run that runs here, or did
	foreign bool    // a subtask of a run that was never seen to run here
	ask     vector  // with defaults filled in
	cost    float64 // see shareOf
	child   vector  // what a subtask of it is expected to ask for
	seen    vector  // the largest subtask that it did create here, nil for none

	passes      int
	passedSince time.Time // of the first pass, zero before
}

// before orders the runs of one account.
func (r *run) before(o *run) int {
	if r.first != o.first {
		if r.first {
			return -1
		}
		return 1
	}
	if n := r.Arrived.Compare(o.Arrived); n != 0 {
		return n
	}
	return cmp.Compare(r.RunID, o.RunID)
}

// family is the runs of one parent task, known here.
type family struct {
	members map[*run]struct{}
	queued  int
}
