package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/runtime"
)

// startTries is how often a start is tried that fails by the making of the node
// or the runtime.
const startTries = 3

// hitch is such a failure: the algorithm has certainly not been started, and
// trying again may help.
type hitch struct{ error }

func (h *hitch) Unwrap() error { return h.error }

// asHitch marks what the engine could not do, unless trying again cannot help.
func asHitch(ctx context.Context, err error) error {
	err = asStart(ctx, err)
	if err == nil || ctx.Err() != nil || diskFailed(err) {
		return err
	}
	for _, lasting := range []error{
		engine.ErrLimit, engine.ErrProgram, runtime.ErrImageNotFound, runtime.ErrWrongPlatform, runtime.ErrInvalid,
	} {
		if errors.Is(err, lasting) {
			return err
		}
	}
	return &hitch{err}
}

// execute starts the algorithm and judges its end. A start that fails without
// having reached the algorithm is repeated. It leaves what the last try made to
// clean.
func (n *Node) execute(ctx context.Context, a *activeRun, r *server.Run, limit limits.Limits) (*outcome, error) {
	retry := backoff.New(backoff.Start)
	for try := 1; ; try++ {
		rec, container, err := n.attempt(ctx, a, r, limit)
		if err == nil {
			return n.attend(ctx, a, rec, container)
		}
		var again *hitch
		if !errors.As(err, &again) || ctx.Err() != nil {
			return nil, err
		}
		if try == startTries {
			return nil, fmt.Errorf("the algorithm could not be started, after %d tries: %w", startTries, err)
		}
		wait := retry.Next()
		n.log.WarnContext(ctx, "a start failed, trying again", "run", a.id, "try", try, "error", err, "wait", wait)
		n.tell(admin.EventRetried, &a.rec, fmt.Sprintf("try %d of %d failed: %v", try, startTries, err))
		if err := n.undo(ctx, a.id); err != nil {
			return nil, err
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// undo removes everything of a try and lets the record say so. It waits for a
// runtime that is away.
func (n *Node) undo(ctx context.Context, id int64) error {
	retry := backoff.New(backoff.Runtime)
	for {
		err := n.engine.Remove(ctx, id)
		if err == nil {
			break
		}
		wait := retry.Next()
		n.log.WarnContext(ctx, "what a try left could not be removed, trying again", "run", id, "error", err, "wait", wait)
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	if err := n.files.Open(id).Remove(); err != nil {
		return fmt.Errorf("remove the files of a try: %w", err)
	}
	return n.backToReceived(id, func(*ledger.Record) {})
}

func (n *Node) backToReceived(id int64, more func(*ledger.Record)) error {
	_, err := n.ledger.Update(id, func(r *ledger.Record) error {
		r.State, r.SandboxID, r.ContainerID, r.StartedAt = ledger.Received, "", "", time.Time{}
		more(r)
		return nil
	})
	return err
}

// afterStart is the runtime's own word on a container whose start failed, if it
// knows the container. It waits for a runtime that is away.
func (n *Node) afterStart(ctx context.Context, id int64, container string) (l engine.Living, known bool) {
	living, err := n.living(ctx)
	l = living[id]
	return l, err == nil && l.ContainerID == container
}

// runAgain takes a run back to its beginning whose algorithm has crashed, if
// the configuration wants that.
func (n *Node) runAgain(ctx context.Context, a *activeRun, out *outcome, err error) bool {
	crashed := err == nil && out.reason == ReasonCrashed || errors.Is(err, engine.ErrVanished)
	rec, getErr := n.ledger.Get(a.id)
	if !crashed || getErr != nil || rec.State != ledger.Starting || rec.KillWanted {
		return false
	}
	tries := n.limitsOf(rec).CrashRetries
	if rec.Crashes >= tries {
		return false
	}
	why := ""
	if err != nil {
		why = err.Error()
	} else {
		why = out.message
	}
	// From here on the record says that the algorithm is to run again.
	if err := n.backToReceived(a.id, func(r *ledger.Record) { r.Crashes++ }); err != nil {
		n.log.ErrorContext(ctx, "a crashed algorithm is not run again because that could not be written down", "run", a.id, "error", err)
		return false
	}
	n.log.WarnContext(ctx, "an algorithm crashed and is run again, as limits.crash_retries allows", "run", a.id, "why", why, "crashes", rec.Crashes+1, "allowed", tries)
	n.tell(admin.EventRetried, rec, fmt.Sprintf("the algorithm is run again after crash %d, of %d that are allowed: %s", rec.Crashes+1, tries, why))
	if err := n.undo(ctx, a.id); err != nil {
		n.log.WarnContext(ctx, "the remains of a crashed algorithm are left for the next start", "run", a.id, "error", err)
	}
	a.again = true
	return true
}
