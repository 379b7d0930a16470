package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/reach"
)

// adopt compares the ledger with the runtime's sandboxes and goes on with what
// an earlier start of this node left: started algorithms are watched again,
// ended ones judged, decided ones delivered, the rest removed so that it can
// begin anew.
func (n *Node) adopt(ctx context.Context) error {
	living, err := n.living(ctx)
	if err != nil {
		return err
	}
	if err := n.rebuild(ctx, living); err != nil {
		return fmt.Errorf("rebuild the ledger: %w", err)
	}
	records, err := n.ledger.Unfinished()
	if err != nil {
		return err
	}
	if len(records) > 0 {
		var turns admission.Turns
		if err := n.ledger.Turns(&turns); err != nil {
			return err
		}
		n.gate.SetTurns(turns)
	}
	known := make(map[int64]bool, len(records))
	for _, rec := range records {
		known[rec.RunID] = true
		n.adoptRun(ctx, rec, living[rec.RunID])
	}
	for id := range living {
		if !known[id] {
			n.log.WarnContext(ctx, "removing a sandbox of this node that its ledger does not know", "run", id)
			if err := n.engine.Remove(ctx, id); err != nil {
				n.log.ErrorContext(ctx, "a sandbox could not be removed", "run", id, "error", err)
			}
		}
	}
	files, err := n.files.RunIDs()
	if err != nil {
		return fmt.Errorf("list the run directories: %w", err)
	}
	for _, id := range files {
		if known[id] {
			continue
		}
		if err := n.files.Open(id).Remove(); err != nil {
			n.log.ErrorContext(ctx, "the files of an unknown run could not be removed", "run", id, "error", err)
		}
	}
	return nil
}

// living returns the newest sandbox of each run, waiting for a runtime that is
// still starting.
func (n *Node) living(ctx context.Context) (map[int64]engine.Living, error) {
	retry := backoff.New(backoff.Runtime)
	for {
		list, err := n.engine.List(ctx)
		if err == nil {
			out := make(map[int64]engine.Living, len(list))
			for _, l := range list {
				if have, ok := out[l.RunID]; !ok || l.Attempt > have.Attempt {
					out[l.RunID] = l
				}
			}
			return out, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n.log.WarnContext(ctx, "the runtime's sandboxes cannot be listed, trying again", "error", err)
		if err := backoff.Sleep(ctx, retry.Next()); err != nil {
			return nil, err
		}
	}
}

func (n *Node) adoptRun(ctx context.Context, rec *ledger.Record, l engine.Living) {
	switch rec.State {
	case ledger.Received, ledger.Preparing:
		// The algorithm was not started: the server offers the run again, and
		// resume begins it anew.
		n.restart(ctx, rec)
	case ledger.Starting, ledger.Running:
		if l.ContainerID == rec.ContainerID && !l.Started && l.ContainerID != "" {
			// Created, and by the runtime's own word never started.
			n.restart(ctx, rec)
			return
		}
		// It counts before any other run is taken into work.
		release := n.countAgain(ctx, rec)
		n.unserved.Add(1)
		served := sync.OnceFunc(n.unserved.Done)
		n.launch(ctx, rec, func(own, ctx context.Context, a *activeRun) {
			defer served()
			defer release()
			n.takeOver(own, ctx, a, rec, l, served, release)
		})
	case ledger.Exited, ledger.Delivered:
		n.launch(ctx, rec, func(own, _ context.Context, a *activeRun) { n.settle(own, a, rec) })
	}
}

// restart clears the remains of a start that never reached the algorithm.
func (n *Node) restart(ctx context.Context, rec *ledger.Record) {
	if err := n.engine.Remove(ctx, rec.RunID); err != nil {
		n.log.ErrorContext(ctx, "the remains of an interrupted start could not be removed", "run", rec.RunID, "error", err)
	}
	if err := n.backToReceived(rec.RunID, func(*ledger.Record) {}); err != nil {
		n.log.ErrorContext(ctx, "an interrupted start could not be written down", "run", rec.RunID, "error", err)
	}
	n.interrupt(rec)
	n.work.all()
}

// countAgain counts a run that was started earlier in the budget. The function
// that it returns gives its room back.
func (n *Node) countAgain(ctx context.Context, rec *ledger.Record) (release func()) {
	q := n.request(rec, n.limitsOf(rec))
	n.countDevices(ctx, q)
	release, err := n.gate.Restore(q)
	if err != nil {
		n.log.ErrorContext(ctx, "a run taken over is not counted in the budget", "run", rec.RunID, "error", err)
		return func() {}
	}
	return release
}

// takeOver goes on with an algorithm that was started before this node was. It
// calls served when its proxy is open again, or will not be.
func (n *Node) takeOver(own, ctx context.Context, a *activeRun, rec *ledger.Record, l engine.Living, served, release func()) {
	n.log.InfoContext(ctx, "taking over a run that was started earlier", "run", a.id, "started", rec.StartedAt.Format(time.RFC3339))
	out, err := n.attendAgain(ctx, a, rec, l, served)
	a.left.Store(true)
	release() // before the delivery, which may take long
	n.conclude(own, ctx, a, out, err)
}

func (n *Node) attendAgain(ctx context.Context, a *activeRun, rec *ledger.Record, l engine.Living, served func()) (*outcome, error) {
	if l.ContainerID == "" || l.ContainerID != rec.ContainerID {
		return nil, fmt.Errorf("%w while the node was away, and the algorithm may have run: send the task again", engine.ErrVanished)
	}
	n.beginTraffic(a.id)
	if !l.Exited && !killed(ctx) {
		ws := n.files.Open(a.id)
		token, err := ws.Token()
		if err != nil {
			return nil, err
		}
		kept, err := ws.Connections()
		if err != nil {
			return nil, err
		}
		plan, err := reach.Decode(kept)
		if err != nil {
			return nil, err
		}
		if err := n.openGateway(ctx, rec, l.SandboxID, token, plan); err != nil {
			return nil, err
		}
	}
	served()
	// The proxies of all come first: without them the algorithms cannot go on.
	select {
	case <-n.served:
	case <-ctx.Done():
	}
	return n.attend(ctx, a, rec, rec.ContainerID)
}
