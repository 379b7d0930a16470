package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/node/ledger"
)

// Housekeeping periods.
const (
	cleanEvery = time.Hour
	// keepRecords is how long the ledger remembers finished runs.
	keepRecords = 90 * 24 * time.Hour
	// keepScratch is how long /mnt/tmp of a job stays after its last run
	// here, because later tasks of the same job may want to read it.
	keepScratch = 24 * time.Hour
	cleanTries  = 5
	// cleanTime bounds one try. A node that stops finishes the try that it has
	// begun, so that it leaves nothing behind that is over.
	cleanTime = 20 * time.Second
)

// clean removes everything of a delivered run from the machine and closes its
// record. It tries a few times: a runtime may be restarting.
func (n *Node) clean(ctx context.Context, rec *ledger.Record) error {
	retry := backoff.New(backoff.Runtime)
	for try := 1; ; try++ {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		err := n.cleanOnce(whole, rec)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || try == cleanTries {
			return err
		}
		if err := backoff.Sleep(ctx, retry.Next()); err != nil {
			return err
		}
	}
}

func (n *Node) cleanOnce(ctx context.Context, rec *ledger.Record) error {
	if err := n.engine.Remove(ctx, rec.RunID); err != nil {
		return err
	}
	if err := n.files.Open(rec.RunID).Remove(); err != nil {
		return err
	}
	if _, err := n.ledger.Update(rec.RunID, func(r *ledger.Record) error {
		r.State = ledger.Done
		return nil
	}); err != nil && !errors.Is(err, ledger.ErrNotFound) { // it could never be written
		return fmt.Errorf("close the record of run %d: %w", rec.RunID, err)
	}
	return n.files.ReleaseJob(rec.JobID, rec.ParentID == 0 && !n.jobInWork(rec.JobID, rec.RunID))
}

// jobInWork reports whether another run of the job is in work here.
func (n *Node) jobInWork(jobID, except int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.active {
		if a.jobID == jobID && a.id != except {
			return true
		}
	}
	return false
}

// janitor removes from time to time what only age makes superfluous. It
// returns when ctx ends.
func (n *Node) janitor(ctx context.Context) error {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		if err := n.sweep(ctx); err != nil {
			n.log.WarnContext(ctx, "cleaning failed, trying again in an hour", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (n *Node) sweep(ctx context.Context) error {
	if _, err := n.ledger.Prune(time.Now().Add(-keepRecords)); err != nil {
		return fmt.Errorf("prune the ledger: %w", err)
	}
	jobs, err := n.files.IdleJobs(time.Now().Add(-keepScratch))
	if err != nil {
		return fmt.Errorf("list the scratch directories: %w", err)
	}
	for _, id := range jobs {
		if n.jobInWork(id, 0) {
			continue
		}
		if err := n.files.ReleaseJob(id, true); err != nil {
			return err
		}
		n.log.InfoContext(ctx, "removed the scratch of an idle job", "job", id)
	}
	return nil
}
