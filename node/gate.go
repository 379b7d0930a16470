package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
)

// newGate makes the admission of runs with the configured budget, filled up
// with what the machine has.
func newGate(b config.Budget) (*admission.Controller, error) {
	machine, err := admission.Machine()
	if err != nil {
		return nil, fmt.Errorf("find out what this machine has: %w", err)
	}
	budget, err := machine.Budget(nil)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		set int64
		to  *int64
	}{{b.Memory, &budget.Memory}, {1000 * b.CPUs, &budget.MilliCPUs}, {b.Pids, &budget.Pids}, {b.Runs, &budget.Runs}} {
		if f.set > 0 {
			*f.to = f.set
		}
	}
	return admission.New(budget, admission.Options{DefaultAsk: admission.Resources{
		// CPU time is shared: a run without a limit is not refused its place
		// for it.
		MilliCPUs: 1,
	}})
}

// request is what a run asks of the budget. Devices are kept apart by their
// assignment.
func (n *Node) request(rec *ledger.Record, l limits.Limits) admission.Request {
	return admission.Request{
		RunID: rec.RunID, TaskID: rec.TaskID, JobID: rec.JobID, ParentTaskID: rec.ParentID,
		OrganizationID: rec.InitOrganizationID, Arrived: rec.ReceivedAt,
		Ask: admission.Resources{Memory: l.Memory, MilliCPUs: admission.MilliCPUs(l.CPUs), Pids: l.Pids},
	}
}

// admit waits until there is room for the run and returns what gives the room
// back.
func (n *Node) admit(ctx context.Context, rec *ledger.Record, l limits.Limits) (release func(), err error) {
	began := time.Now()
	if err := n.gate.Enqueue(n.request(rec, l)); err != nil {
		return nil, refuse(ReasonRoom, err)
	}
	n.tell(admin.EventQueued, rec, "")
	release, err = n.gate.Wait(ctx, rec.RunID)
	if err != nil {
		if ctx.Err() == nil {
			err = refuse(ReasonRoom, err)
		}
		return nil, err
	}
	waited := time.Since(began)
	n.tell(admin.EventAdmitted, rec, fmt.Sprintf("after %v", waited.Round(time.Millisecond)))
	if waited > time.Second {
		n.log.InfoContext(ctx, "run admitted", "run", rec.RunID, "waited", waited.Round(time.Millisecond))
	}
	return release, nil
}

// tell writes an event into the journal.
func (n *Node) tell(kind admin.EventType, rec *ledger.Record, message string) {
	e := admin.Event{Type: kind, Message: message}
	if rec != nil {
		e.Run, e.Task = rec.RunID, rec.TaskID
	}
	n.measure(kind, rec)
	n.journal.Add(e)
}

// pausedFile marks a pause, so that it holds over restarts.
const pausedFile = "paused"

// Pause implements admin.Station.
func (s *adminView) Pause(context.Context) error {
	if err := os.WriteFile(filepath.Join(s.stateDir, pausedFile), nil, 0o600); err != nil {
		return fmt.Errorf("write down the pause: %w", err)
	}
	s.gate.Pause()
	s.tell(admin.EventPaused, nil, "no further run begins until `v6node resume`")
	return nil
}

// Resume implements admin.Station.
func (s *adminView) Resume(context.Context) error {
	if err := os.Remove(filepath.Join(s.stateDir, pausedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("take the pause back: %w", err)
	}
	s.gate.Resume()
	s.tell(admin.EventResumed, nil, "")
	return nil
}
