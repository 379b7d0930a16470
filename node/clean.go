package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/failpoint"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/ledger"
)

// Housekeeping periods.
const (
	// lookEvery is how often it is asked whether there is something to collect.
	lookEvery = time.Minute
	// hurryEvery is the least time between two rounds for want of room, because
	// the second one finds little that the first did not.
	hurryEvery = 5 * time.Minute
	// cleanTime bounds one try. A node that stops finishes the try that it has
	// begun, so that it leaves nothing behind that is over.
	cleanTime = 20 * time.Second
)

// clean removes everything of a delivered run from the machine and closes its
// record. It tries until that succeeds or ctx ends: a runtime may hang or be
// away, and a disk be full, for however long.
func (n *Node) clean(ctx context.Context, rec *ledger.Record) error {
	retry := backoff.New(backoff.Cleaning)
	for {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		err := n.cleanOnce(whole, rec)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		wait := retry.Next()
		n.log.WarnContext(ctx, "a run's remains could not be removed, trying again", "run", rec.RunID, "error", err, "wait", wait)
		if backoff.Sleep(ctx, wait) != nil {
			return err
		}
	}
}

func (n *Node) cleanOnce(ctx context.Context, rec *ledger.Record) error {
	if err := n.engine.Remove(ctx, rec.RunID); err != nil {
		return err
	}
	failpoint.Reached(failpoint.SandboxRemoved)
	ws := n.files.Open(rec.RunID)
	if err := ws.KeepLog(); err != nil { // no reason to leave the run's data where they are
		n.log.WarnContext(ctx, "the log of a run is lost on this machine", "run", rec.RunID, "error", err)
	}
	if err := ws.Remove(); err != nil {
		return err
	}
	n.endTraffic(rec.RunID)
	failpoint.Reached(failpoint.FilesRemoved)
	n.tell(admin.EventRemoved, rec, "")
	if _, err := n.releaseJob(rec.JobID, rec.RunID, rec.ParentID == 0); err != nil {
		return err
	}
	// Last, for what the record does not ask for any more nobody looks after.
	if _, err := n.ledger.Update(rec.RunID, func(r *ledger.Record) error {
		r.State = ledger.Done
		return nil
	}); err != nil && !errors.Is(err, ledger.ErrNotFound) { // it could never be written
		return fmt.Errorf("close the record of run %d: %w", rec.RunID, err)
	}
	failpoint.Reached(failpoint.Closed)
	return nil
}

// releaseJob takes a job's scratch away unless another run of the job is in
// work here, and tells whether it did: all of it, or what is empty. What was to go
// altogether goes with the last of these runs. The lock keeps a further run from being
// taken into work in between, which would be prepared and then lose it.
func (n *Node) releaseJob(jobID, except int64, all bool) (bool, error) {
	n.mu.Lock()
	if own := n.active[except]; own != nil {
		own.scratchless = true // else two that end at the same time wait for each other
	}
	for _, a := range n.active {
		if a.jobID == jobID && a.id != except && !a.scratchless {
			if all && except != 0 { // its first task has ended
				n.orphaned[jobID] = struct{}{}
			}
			n.mu.Unlock()
			return false, nil
		}
	}
	if _, orphaned := n.orphaned[jobID]; orphaned {
		delete(n.orphaned, jobID)
		all = true
	}
	remove, err := n.files.ReleaseJob(jobID, all)
	n.mu.Unlock()
	return true, errors.Join(err, remove())
}

// janitor collects from time to time, and whenever a file system is short of
// room. It returns when ctx ends.
func (n *Node) janitor(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	if err := n.files.RemoveReleased(); err != nil {
		n.log.WarnContext(ctx, "scratch that an earlier start released could not be deleted, trying again at the next start", "error", err)
	}
	select {
	case <-n.served: // a round reads all records
	case <-ctx.Done():
		return ctx.Err()
	}
	var last time.Time // the round before
	for {
		n.loops.clean.Beat()
		if n.due(ctx, last) {
			last = time.Now()
			if _, err := n.collect(ctx, admin.GCOptions{}, n.loops.clean.Beat); err != nil && ctx.Err() == nil {
				n.log.WarnContext(ctx, "collecting failed, trying again later", "error", err)
			}
		}
		n.loops.clean.Rest()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// due tells whether a collection is to begin.
func (n *Node) due(ctx context.Context, last time.Time) bool {
	since := time.Since(last)
	if every := n.cfg.GC.Interval; every > 0 && since >= every {
		return true
	}
	if since < hurryEvery {
		return false
	}
	short, err := n.isShort(ctx)
	if err != nil {
		n.log.WarnContext(ctx, "the free space is not known", "error", err)
	}
	return short
}
