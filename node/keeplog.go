package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/runtime"
)

// settleTime bounds how long the last of an ended algorithm's log is waited for.
const settleTime = 3 * time.Second

// limitAgain is how often it is asked whether a log without a limit has one now.
const limitAgain = time.Second

// keepLog keeps a living run's log within limits.log_size. It returns the
// *overrun for which the run must be stopped, or nil when ctx ends.
func (n *Node) keepLog(ctx context.Context, rec *ledger.Record, container string) error {
	r := runtime.NewRotator(n.files.Open(rec.RunID).LogFile(), runtime.RotatorOptions{
		Reopen: func(ctx context.Context) error { return n.engine.ReopenLog(ctx, container) }, Head: logHead,
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if now, err := n.ledger.Get(rec.RunID); err == nil {
			rec = now // the limit may have been changed
		}
		limit := n.limitsOf(rec).LogSize
		if limit == 0 {
			timer.Reset(limitAgain)
			continue
		}
		// A rotation under way is completed, so that the runtime never writes to
		// a file that has been moved aside for longer than that takes.
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
		again, err := r.Keep(whole, limit)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil // the algorithm's end explains it
		case errors.Is(err, runtime.ErrLogFull):
			return &overrun{ReasonSpace, fmt.Sprintf("the algorithm was stopped: its log took more than %s on the disk (limits.log_size), and the container runtime could not begin another file (%v): write less, or ask the node's administrator to look after the runtime", units.FormatSize(limit), err)}
		case err != nil:
			n.log.WarnContext(ctx, "the log of a run could not be kept small, trying again", "run", rec.RunID, "error", err)
		}
		timer.Reset(again)
	}
}

// settleLog waits until an ended algorithm's log is complete.
func settleLog(ctx context.Context, path string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	runtime.SettleLog(ctx, path)
}

// shipment is up to where, and how many bytes, a run's log was sent while it grew, so that
// a node that takes the run over goes on there.
type shipment struct {
	runtime.LogPos
	Sent int64 `json:"sent,omitzero"`
}

// shipped reads the note of it. A note that cannot be read is none: then lines are
// sent again.
func shipped(ws *workspace.Run) shipment {
	var at shipment
	b, err := os.ReadFile(ws.ShippedFile())
	if err != nil || json.Unmarshal(b, &at) != nil {
		return shipment{}
	}
	return at
}

func noteShipped(ws *workspace.Run, at shipment) error {
	return writeNote(ws.ShippedFile(), at)
}
