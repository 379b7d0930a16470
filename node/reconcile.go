package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/failpoint"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/server"
)

// lookups is how many tasks are asked for at the same time.
const lookups = 4

// worklist collects what the reconciler is to look at. Wishes that come while
// it is busy are joined.
type worklist struct {
	mu    sync.Mutex
	every bool
	tasks map[int64]struct{}
	ready chan struct{}
}

func newWorklist() *worklist {
	return &worklist{tasks: make(map[int64]struct{}), ready: make(chan struct{}, 1)}
}

func (w *worklist) all() { w.add(func() { w.every = true }) }

func (w *worklist) task(id int64) { w.add(func() { w.tasks[id] = struct{}{} }) }

func (w *worklist) add(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// take returns what is to be looked at: everything, or these tasks.
func (w *worklist) take() (every bool, tasks []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	every = w.every
	for id := range w.tasks {
		tasks = append(tasks, id)
	}
	w.every = false
	clear(w.tasks)
	return every, tasks
}

// reconcile takes the server's open runs into work whenever something calls
// for it. It returns only when ctx ends.
func (n *Node) reconcile(ctx context.Context) error {
	retry := backoff.New(backoff.Server)
	for {
		n.loops.reconcile.Rest()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.work.ready:
		}
		n.loops.reconcile.Beat()
		every, tasks := n.work.take()
		began := time.Now()
		err := n.lookUp(ctx, every, tasks)
		if every || err != nil {
			n.metrics.Looked(time.Since(began), err)
		}
		n.loops.reconcile.Beat()
		if err == nil {
			retry.Reset()
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, asked := server.Passing(err)
		wait := max(asked, retry.Next())
		n.log.WarnContext(ctx, "the open runs could not be listed, trying again", "error", err, "wait", wait)
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
		n.work.all()
	}
}

func (n *Node) lookUp(ctx context.Context, every bool, tasks []int64) error {
	if every {
		asked := time.Now()
		runs, err := n.api.OpenRuns(ctx, 0)
		if err != nil {
			n.absent.looked()
			return err
		}
		n.session.listed()
		n.missing(ctx, asked, runs)
		n.accept(ctx, runs)
		return nil
	}
	// Whoever came first is to go first, whichever answer comes first.
	slices.Sort(tasks)
	for some := range slices.Chunk(tasks, lookups) {
		found := make([][]*server.Run, len(some))
		g, gctx := errgroup.WithContext(ctx)
		for i, id := range some {
			g.Go(func() (err error) {
				found[len(some)-1-i], err = n.api.OpenRuns(gctx, id)
				return err
			})
		}
		err := g.Wait()
		n.accept(ctx, slices.Concat(found...))
		if err != nil {
			return err
		}
	}
	return nil
}

// accept takes runs into work that nobody drives: those that the ledger does not
// know yet, and those that it knows as not begun. The server lists the newest
// first.
func (n *Node) accept(ctx context.Context, runs []*server.Run) {
	var records []*ledger.Record
	offered := make(map[int64]*server.Run, len(runs))
	for _, r := range slices.Backward(runs) {
		if r.FinishedAt != nil || r.OrganizationID != n.identity.OrganizationID || n.activeRun(r.ID) != nil {
			continue
		}
		offered[r.ID] = r
		records = append(records, recordOf(r))
	}
	if len(records) == 0 {
		return
	}
	added, err := n.ledger.InsertNew(records)
	failpoint.Reached(failpoint.Received)
	together := n.together()
	defer together.all()
	for _, rec := range records {
		n.loops.reconcile.Beat()
		r := offered[rec.RunID]
		known := !added[rec.RunID]
		if err != nil {
			_, missing := n.ledger.Get(rec.RunID)
			known = missing == nil
		}
		switch {
		case known:
			n.resume(ctx, r, together)
		case err != nil:
			err := fmt.Errorf("write down run %d: %w", r.ID, err)
			n.launch(ctx, rec, func(own, ctx context.Context, a *activeRun) { n.conclude(own, ctx, a, nil, err) })
		default:
			n.launchWith(ctx, rec, together.one(), func(own, ctx context.Context, a *activeRun) { n.drive(own, ctx, a, rec, r) })
		}
	}
}

// recordOf is the first record of a run that the server offers.
func recordOf(r *server.Run) *ledger.Record {
	rec := &ledger.Record{
		RunID: r.ID, TaskID: r.TaskID, JobID: r.JobID, ParentID: r.ParentID,
		OrganizationID: r.OrganizationID, CollaborationID: r.CollaborationID,
		InitOrganizationID: r.InitOrganizationID, InitUserID: r.InitUserID,
		Image: r.Image, BlobStored: r.BlobStored, State: ledger.Received, ReceivedAt: time.Now().UTC(),
	}
	for _, d := range r.Databases {
		rec.Databases = append(rec.Databases, d.Label)
	}
	return rec
}

// resume restarts a run that the ledger knows as begun and that nobody drives:
// one whose start was cut short by a stop of the node. The algorithm has not
// run, else adopt would have taken it.
func (n *Node) resume(ctx context.Context, r *server.Run, together *arrivals) {
	rec, err := n.ledger.Get(r.ID)
	if err != nil {
		n.log.ErrorContext(ctx, "could not read a run's record", "run", r.ID, "error", err)
		return
	}
	switch {
	case rec.State == ledger.Done:
		n.launch(ctx, rec, func(own, _ context.Context, a *activeRun) { n.tellAgain(own, a, rec) })
		return
	case !rec.State.Unbegun():
		return
	}
	n.launchWith(ctx, rec, together.one(), func(own, ctx context.Context, a *activeRun) { n.drive(own, ctx, a, rec, r) })
}

// tellAgain reports a run that is over and that the server offers nevertheless: one
// that was restored from a backup has lost what it had acknowledged. The run is not
// executed again, and its result is no longer here, unless it went to the server's
// blob store.
func (n *Node) tellAgain(ctx context.Context, a *activeRun, rec *ledger.Record) {
	r, err := n.api.Run(ctx, rec.RunID)
	if err != nil || r.FinishedAt != nil {
		return // the list was older than the delivery; else it is offered again
	}
	if rec.Reason == string(ReasonGone) {
		n.log.ErrorContext(ctx, "the server offers a run that it did not have: its result is not here any more, which it is told", "run", rec.RunID, "given_up", rec.FinishedAt.Format(time.RFC3339))
	} else {
		n.log.ErrorContext(ctx, "the server offers a run whose outcome it had acknowledged: it has lost it, and is told again", "run", rec.RunID, "delivered", rec.DeliveredAt.Format(time.RFC3339))
	}
	changed, err := n.ledger.Update(rec.RunID, func(r *ledger.Record) error {
		r.State, r.FinishedAt = ledger.Exited, time.Now().UTC()
		switch {
		case r.Reason == string(ReasonGone):
			r.Reason, r.Status = string(ReasonUndelivered), string(statusOf[ReasonUndelivered])
			r.Message = "the node gave this run up because the server did not have it any more, and nothing of it is left: send the task again"
		case r.ResultBlob != "": // a blob store is not the database that was restored
			r.Message = fmt.Sprintf("this run was executed and its result put into the server's blob store before %s; its log, which the server does not have any more, is not here either", r.DeliveredAt.Format(time.DateTime+" MST"))
		case r.HasOutput:
			r.Reason, r.Status, r.HasOutput = string(ReasonUndelivered), string(statusOf[ReasonUndelivered]), false
			r.Message = fmt.Sprintf("this run was executed and its result delivered on %s, which the server does not have any more: send the task again", r.DeliveredAt.Format(time.DateTime+" MST"))
		}
		return nil
	})
	if err != nil {
		n.log.ErrorContext(ctx, "that a run is to be told again could not be written down", "run", rec.RunID, "error", err)
		return
	}
	n.settle(ctx, a, changed)
}

// missing looks after runs that the server no longer lists as open: they were
// finished, killed or deleted there while no event reached us. Those in work are
// ended, and of those that were never begun the remains are removed.
func (n *Node) missing(ctx context.Context, asked time.Time, open []*server.Run) {
	listed := make(map[int64]bool, len(open))
	for _, r := range open {
		listed[r.ID] = true
	}
	knows := n.knownToServer(ctx)
	defer n.absent.looked()
	for _, a := range n.activeRuns() {
		if listed[a.id] || a.since.After(asked) {
			continue
		}
		finished, gone := n.fate(ctx, a.id, asked, knows)
		if gone {
			n.giveUp(ctx, a)
		}
		if !finished {
			continue
		}
		// One that we are just delivering is finished by ourselves.
		if rec, err := n.ledger.Get(a.id); err == nil && !rec.State.Final() {
			n.killOne(ctx, a.id, killedByServer)
		}
	}
	for _, rec := range n.over(listed) {
		switch finished, gone := n.fate(ctx, rec.RunID, asked, knows); {
		case gone:
			n.giveUpUnbegun(ctx, rec)
		case finished:
			n.launch(ctx, rec, func(own, _ context.Context, _ *activeRun) {
				_ = n.clean(own, rec) // what is left when the node stops is the next start's
			})
		}
	}
}

// fate asks the server what became of a run that it does not list as open.
func (n *Node) fate(ctx context.Context, id int64, asked time.Time, knows func() error) (finished, gone bool) {
	n.loops.reconcile.Beat()
	r, err := n.api.Run(ctx, id)
	switch {
	case errors.Is(err, server.ErrNoRun):
		return false, n.isGone(ctx, id, asked, knows)
	case err != nil:
		n.log.WarnContext(ctx, "could not ask for a run that is no longer listed as open", "run", id, "error", err)
		return false, false
	}
	return r.FinishedAt != nil, false
}
