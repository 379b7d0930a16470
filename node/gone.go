package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/ledger"
)

// goneFromServer ends a run that the server no longer has.
const goneFromServer = killCause("the server no longer has this run, as when its task is deleted there, and its result is not delivered")

// errGone ends the delivery of such a run.
var errGone = errors.New("the server no longer has the run")

// absences are the runs that the server says it does not have, and since when. Only
// the reconciler uses them.
//
// A run is given up for good, so one answer is not enough. It is, where the list of
// open runs lacks the run, the server denies it by its number when asked for it alone,
// and the same server knows this node: at two looks in a row, poll_interval apart or
// more. Anything else in between, also no answer, begins anew.
type absences struct {
	since map[int64]time.Time
	next  map[int64]time.Time // found at the look under way
}

// denied notes that the server has denied a run at a look that began then, and
// returns for how long it does.
func (d *absences) denied(id int64, at time.Time) time.Duration {
	first, before := d.since[id]
	if !before {
		first = at
	}
	if d.next == nil {
		d.next = make(map[int64]time.Time)
	}
	d.next[id] = first
	return at.Sub(first)
}

// looked ends a look: what was not denied at it is forgotten.
func (d *absences) looked() { d.since, d.next = d.next, nil }

// isGone tells whether a run that the server has just denied is given up. knows asks whether what
// answers is the server that knows this node.
func (n *Node) isGone(ctx context.Context, id int64, asked time.Time, knows func() error) bool {
	since := n.absent.denied(id, asked)
	if since < n.cfg.PollInterval {
		n.log.WarnContext(ctx, "the server says that it does not have a run: asking again before it is given up", "run", id, "for", since.Round(time.Second))
		return false
	}
	if err := knows(); err != nil {
		n.log.WarnContext(ctx, "the server says that it does not have a run, and does not know this node as before: the run is not given up", "run", id, "error", err)
		return false
	}
	return true
}

// knownToServer returns a function that asks, once, whether the server knows this node as what it was.
func (n *Node) knownToServer(ctx context.Context) func() error {
	return sync.OnceValue(func() error {
		id, err := n.api.Connect(ctx)
		if err != nil {
			return err
		}
		if id.NodeID != n.identity.NodeID || id.OrganizationID != n.identity.OrganizationID || id.CollaborationID != n.identity.CollaborationID {
			return fmt.Errorf("it has this node as node %d of organization %d in collaboration %d: restart the node if that is meant", id.NodeID, id.OrganizationID, id.CollaborationID)
		}
		return nil
	})
}

// giveUp ends a run in work that the server no longer has: its algorithm, or its
// delivery.
func (n *Node) giveUp(ctx context.Context, a *activeRun) {
	rec, err := n.ledger.Get(a.id)
	switch {
	case err == nil && rec.State.Final():
		a.drop()
	case err != nil && !errors.Is(err, ledger.ErrNotFound):
		n.log.ErrorContext(ctx, "could not read a run's record", "run", a.id, "error", err)
	default:
		n.killOne(ctx, a.id, goneFromServer)
	}
}

// giveUpUnbegun closes the record of such a run that nobody drives.
func (n *Node) giveUpUnbegun(ctx context.Context, rec *ledger.Record) {
	n.launch(ctx, rec, func(own, ctx context.Context, a *activeRun) {
		n.conclude(own, ctx, a, &outcome{reason: ReasonGone, message: string(goneFromServer) + unstarted}, nil)
	})
}

// wanted returns a context that ends with own, or with errGone when the server no longer has the run.
func (a *activeRun) wanted(own context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(own)
	stop := context.AfterFunc(a.dropped, func() { cancel(errGone) })
	return ctx, func() { stop(); cancel(nil) }
}

// handOver delivers a decided run's outcome, unless the server no longer has the run. An error means that the node
// stops before.
func (n *Node) handOver(ctx context.Context, a *activeRun, rec *ledger.Record) error {
	if rec.Reason != string(ReasonGone) {
		err := n.deliver(ctx, a, rec)
		if err == nil {
			n.auditDelivery(ctx, rec)
			return nil
		}
		if !errors.Is(err, errGone) {
			return err
		}
		if rec, err = n.withdraw(ctx, rec); err != nil {
			return err
		}
	}
	n.log.WarnContext(ctx, "the server no longer has a run: its result is not delivered", "run", rec.RunID, "task", rec.TaskID, "why", rec.Message)
	n.tell(admin.EventUndelivered, rec, rec.Message)
	e := entryOf(audit.Undelivered, rec)
	e.Outcome, e.Reason = rec.Reason, rec.Message
	if err := n.audit.Append(e); err != nil {
		n.log.ErrorContext(ctx, "that a result is not delivered could not be put on record", "run", rec.RunID, "error", err)
	}
	return nil
}

// withdraw replaces a run's outcome, which nobody will be told. An error means that the
// node stops before that is written down.
func (n *Node) withdraw(ctx context.Context, rec *ledger.Record) (*ledger.Record, error) {
	change := func(r *ledger.Record) error {
		r.Message = fmt.Sprintf("%s; it had ended as %q", goneFromServer, rec.Reason)
		r.Reason, r.Status, r.HasOutput, r.ResultBlob = string(ReasonGone), string(statusOf[ReasonGone]), false, ""
		return nil
	}
	var changed *ledger.Record
	err := n.untilWritten(ctx, rec.RunID, "that a run is given up could not be written down, trying again", func() (err error) {
		// The file may say less than the record of a run that was refused on a full disk.
		changed, err = n.ledger.Update(rec.RunID, change)
		if errors.Is(err, ledger.ErrNotFound) {
			changed = new(*rec)
			return change(changed)
		}
		return err
	})
	return changed, err
}
