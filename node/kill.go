package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/server"
)

// killCause is the cause for which a killed run's context ends: who asked for
// it. It is what the user reads.
type killCause string

// tellTime is how long the runtime may take to tell how an algorithm ended that it
// has stopped.
const tellTime = 5 * time.Second

// Who asks for a run's end.
const (
	killedByServer   = killCause("the run was killed at the server's request")
	killedHere       = killCause("the run was killed by the administrator of this node")
	killedWithParent = killCause("the run was killed because the run that made its task was")
)

func (k killCause) Error() string { return string(k) }

// victims says whom an order to kill is about.
type victims struct {
	// named are runs that it names.
	named func(*ledger.Record) bool
	// tasks are ended altogether, wherever their runs are.
	tasks []int64
	why   killCause
}

// kill ends the runs that a kill event names, and their subtasks' runs here: the
// server names no more than the children of a task, and these may have children.
func (n *Node) kill(ctx context.Context, k *server.KillOrder) {
	n.killAll(ctx, victims{why: killedByServer, tasks: k.Tasks, named: func(rec *ledger.Record) bool {
		return k.All || slices.ContainsFunc(k.Runs, func(r server.KillRun) bool {
			return r.RunID == rec.RunID || (r.RunID == 0 && r.TaskID == rec.TaskID)
		})
	}})
}

// killOne ends one run, with the runs here of the tasks that it has made.
func (n *Node) killOne(ctx context.Context, id int64, why killCause) {
	n.killAll(ctx, victims{why: why, named: func(rec *ledger.Record) bool { return rec.RunID == id }})
}

// killAll writes the wish down of each run before it acts on it: it holds until
// the runs have ended, whatever happens to this node meanwhile.
func (n *Node) killAll(ctx context.Context, v victims) {
	for rec, a := range n.condemn(v) {
		why := v.why
		if !v.named(rec) {
			why = killedWithParent
		}
		if a != nil {
			n.killRun(ctx, a, why)
			continue
		}
		// It begins anew when the server offers it, and then ends at once.
		n.wantKilled(ctx, rec.RunID, why)
	}
}

// condemn finds the runs that an order is about, and keeps in mind whose subtasks
// are to end too. The value is nil for a run that nobody drives at the moment.
func (n *Node) condemn(v victims) map[*ledger.Record]*activeRun {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, task := range v.tasks {
		n.doomed.add(task, anyOrganization)
	}
	all := make(map[*ledger.Record]*activeRun, len(n.active)+len(n.interrupted))
	for _, rec := range n.interrupted {
		all[rec] = nil
	}
	for _, a := range n.active {
		all[&a.rec] = a
	}
	found := make(map[*ledger.Record]*activeRun)
	for more := true; more; {
		more = false
		for rec, a := range all {
			by, child := n.doomed.parentOf(rec)
			if !child && !v.named(rec) {
				continue
			}
			if !child {
				by = rec.OrganizationID
			}
			n.doomed.add(rec.TaskID, by)
			found[rec] = a
			delete(all, rec)
			more = true
		}
	}
	return found
}

// killRun ends one run in work.
func (n *Node) killRun(ctx context.Context, a *activeRun, why killCause) {
	n.wantKilled(ctx, a.id, why)
	if !a.killing.Swap(true) {
		n.log.InfoContext(ctx, "killing a run", "run", a.id, "why", string(why))
		n.tell(admin.EventKilled, &a.rec, string(why))
	}
	a.cancel(why)
}

// wantKilled writes the wish down. Without that the run is stopped all the same;
// only a crash in between could forget it, and most wishes the server repeats in
// its list of runs.
func (n *Node) wantKilled(ctx context.Context, id int64, why killCause) {
	if _, err := n.ledger.Update(id, func(r *ledger.Record) error {
		if !r.KillWanted {
			r.KillWanted, r.KillWhy = true, string(why)
		}
		return nil
	}); err != nil {
		n.log.ErrorContext(ctx, "could not write down that a run is to be killed", "run", id, "error", err)
	}
}

// stop ends an algorithm that may not go on, and returns how it ended, nil where
// the runtime does not tell. It asks for its end again until the runtime confirms
// it. An error means that the node stops: the next start goes on asking.
func (n *Node) stop(own context.Context, id int64, container string) (*engine.Exit, error) {
	retry := backoff.New(backoff.Runtime)
	for {
		// What was begun is finished also by a node that stops.
		try, cancel := context.WithTimeout(context.WithoutCancel(own), n.cfg.StopGrace+finishTime)
		err := n.engine.Stop(try, container, n.cfg.StopGrace)
		if err == nil {
			defer cancel()
			told, end := context.WithTimeout(try, tellTime)
			defer end()
			exit, _ := n.engine.Wait(told, id, container) // its end is confirmed, if not how
			return exit, nil
		}
		cancel()
		wait := retry.Next()
		n.log.ErrorContext(own, "an algorithm that is to end could not be stopped, trying again", "run", id, "error", err, "wait", wait)
		if sleepErr := backoff.Sleep(own, wait); sleepErr != nil {
			return nil, fmt.Errorf("the algorithm of run %d goes on although it is to end: %w", id, err)
		}
	}
}

// unstarted is how the sentence about a run goes on whose algorithm was not begun.
const unstarted = "; its algorithm had not been started"

// killedOutcome is that of a killed run, once nothing of its algorithm runs any
// more. An error means that the node stops before.
func (n *Node) killedOutcome(own, ctx context.Context, a *activeRun) (*outcome, error) {
	why := context.Cause(ctx)
	out := &outcome{reason: ReasonKilled, message: why.Error()}
	if why == goneFromServer {
		out.reason = ReasonGone
	}
	rec, err := n.ledger.Get(a.id)
	if n.unbegun(a) {
		out.message += unstarted
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if !a.halted {
		exit, err := n.stop(own, a.id, rec.ContainerID)
		if err != nil {
			return nil, err
		}
		a.halted, a.exit = true, exit
	}
	out.message += "; its algorithm was stopped"
	if a.exit != nil {
		out.exitCode = a.exit.Code
		out.message += fmt.Sprintf(" after %v, with exit code %d", a.exit.FinishedAt.Sub(a.exit.StartedAt).Round(time.Millisecond), a.exit.Code)
	}
	return out, nil
}
