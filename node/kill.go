package node

import (
	"context"
	"slices"

	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/server"
)

// kill ends the runs that a kill event names. The wish is written down first:
// it holds until the runs have ended.
func (n *Node) kill(ctx context.Context, k *server.KillOrder) {
	for _, a := range n.activeRuns() {
		if k.All || slices.ContainsFunc(k.Runs, func(r server.KillRun) bool { return r.RunID == a.id || (r.RunID == 0 && r.TaskID == a.taskID) }) {
			n.killRun(ctx, a, "the server sent kill_containers")
		}
	}
}

func (n *Node) killRun(ctx context.Context, a *activeRun, why string) {
	n.log.InfoContext(ctx, "killing a run", "run", a.id, "why", why)
	if _, err := n.ledger.Update(a.id, func(r *ledger.Record) error {
		r.KillWanted = true
		return nil
	}); err != nil {
		// The run is stopped all the same; only a crash in between could
		// forget the wish, and the server repeats it in its list of runs.
		n.log.ErrorContext(ctx, "could not write down that a run is to be killed", "run", a.id, "error", err)
	}
	a.cancel(errKilled)
}
