package node

import (
	"context"
	"slices"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/server"
)

// killCause is the cause for which a killed run's context ends: who asked for
// it. It is what the user reads.
type killCause string

// Who asks for a run's end.
const (
	killedByServer = killCause("the run was killed at the server's request")
	killedHere     = killCause("the run was killed by the administrator of this node")
)

func (k killCause) Error() string { return string(k) }

// kill ends the runs that a kill event names. The wish is written down first:
// it holds until the runs have ended.
func (n *Node) kill(ctx context.Context, k *server.KillOrder) {
	for _, a := range n.activeRuns() {
		if k.All || slices.ContainsFunc(k.Runs, func(r server.KillRun) bool { return r.RunID == a.id || (r.RunID == 0 && r.TaskID == a.taskID) }) {
			n.killRun(ctx, a, killedByServer)
		}
	}
}

func (n *Node) killRun(ctx context.Context, a *activeRun, why killCause) {
	n.log.InfoContext(ctx, "killing a run", "run", a.id, "why", string(why))
	n.tell(admin.EventKilled, &a.rec, string(why))
	if _, err := n.ledger.Update(a.id, func(r *ledger.Record) error {
		r.KillWanted, r.KillWhy = true, string(why)
		return nil
	}); err != nil {
		// The run is stopped all the same; only a crash in between could
		// forget the wish, and the server repeats it in its list of runs.
		n.log.ErrorContext(ctx, "could not write down that a run is to be killed", "run", a.id, "error", err)
	}
	a.cancel(why)
}
