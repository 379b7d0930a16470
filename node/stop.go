package node

import (
	"context"
	"time"
)

// StopMode is what becomes of living runs when the node is asked to stop. Runs
// in the queue stay at the server in every mode, for the next start.
type StopMode int

// The modes.
const (
	// StopLeave leaves them running; the next start takes them over.
	StopLeave StopMode = iota
	// StopDrain begins none but subtasks of living runs, and waits until the
	// living ones have ended and are delivered, however long that takes.
	StopDrain
	// StopKill stops them and tells the server.
	StopKill
)

const killedByStop = killCause("the run was stopped because its node was shut down with --stop-runs: send the task again")

const (
	// idleEvery is how often it is asked whether all runs are over.
	idleEvery = 100 * time.Millisecond
	// sayEvery is how often it is said what is waited for.
	sayEvery = time.Minute
)

// windDown does with the living runs what the mode says. It returns when they
// are over or ctx ends.
func (n *Node) windDown(ctx context.Context) {
	if n.stopMode == StopLeave {
		return
	}
	n.gate.Pause()
	if n.stopMode == StopKill {
		var cancel context.CancelFunc
		// What cannot be told to the server by then is told by the next start.
		ctx, cancel = context.WithTimeout(ctx, n.cfg.StopGrace+finishTime)
		defer cancel()
		for _, a := range n.begun() {
			n.killRun(ctx, a, killedByStop)
		}
	}
	tick := time.NewTicker(idleEvery)
	defer tick.Stop()
	var said time.Time
	for {
		left := n.begun()
		n.winding.Store(int64(len(left)))
		if len(left) == 0 {
			return
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			n.log.InfoContext(ctx, "stopping when all runs are over", "runs", len(left))
		}
		select {
		case <-ctx.Done():
			n.log.WarnContext(ctx, "stopping although runs are not over: the next start goes on with them", "runs", len(left))
			return
		case <-tick.C:
		}
	}
}

// WindingDown is how many runs a node that was asked to stop still waits for.
func (n *Node) WindingDown() int { return int(n.winding.Load()) }

// begun are the runs in work that wait neither in the queue nor for approval.
func (n *Node) begun() []*activeRun {
	queued := make(map[int64]bool)
	for _, w := range n.gate.Snapshot().Queued {
		queued[w.RunID] = true
	}
	var out []*activeRun
	for _, a := range n.activeRuns() {
		if !queued[a.id] && !a.held.Load() {
			out = append(out, a)
		}
	}
	return out
}
