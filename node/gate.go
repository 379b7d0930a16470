package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
)

// newGate makes the admission of runs with the configured budget, filled up
// with what the machine has. Devices are added when runs ask for some.
func newGate(b config.Budget, a config.Admission) (*admission.Controller, error) {
	machine, err := admission.Machine()
	if err != nil {
		return nil, fmt.Errorf("find out what this machine has: %w", err)
	}
	budget, err := budgetOf(machine, b)
	if err != nil {
		return nil, err
	}
	return admission.New(budget, admission.Options{
		DefaultAsk: admission.Resources{
			// CPU time is shared: a run without a limit is not refused its place
			// for it.
			MilliCPUs: 1,
		},
		Depth:        int(a.Depth),
		ChildReserve: admission.Resources{Memory: a.Memory, MilliCPUs: 1000 * a.CPUs, Pids: a.Pids},
		MaxPasses:    int(a.MaxPasses), MaxPassedFor: a.MaxPassedFor, StallAfter: a.StallAfter,
	})
}

// budgetOf is the configured budget, or else the machine's less the reserve.
func budgetOf(machine admission.Capacity, b config.Budget) (admission.Budget, error) {
	reserve := machine.DefaultReserve()
	for _, f := range []struct {
		set  *int64
		unit int64
		to   *int64
	}{{b.Reserve.Memory, 1, &reserve.Memory}, {b.Reserve.CPUs, 1000, &reserve.MilliCPUs}, {b.Reserve.Pids, 1, &reserve.Pids}} {
		if f.set != nil {
			*f.to = f.unit * *f.set
		}
	}
	budget, err := machine.Budget(&reserve)
	if err != nil {
		return budget, fmt.Errorf("%w: resources.reserve: %w", config.ErrInvalid, err)
	}
	for _, f := range []struct {
		set int64
		to  *int64
	}{{b.Memory, &budget.Memory}, {1000 * b.CPUs, &budget.MilliCPUs}, {b.Pids, &budget.Pids}, {b.Runs, &budget.Runs}} {
		if f.set > 0 {
			*f.to = f.set
		}
	}
	return budget, nil
}

// request is what a run asks of the budget. A device that it names is not
// counted: naming it shares it.
func (n *Node) request(rec *ledger.Record, l limits.Limits) admission.Request {
	q := admission.Request{
		RunID: rec.RunID, TaskID: rec.TaskID, JobID: rec.JobID, ParentTaskID: rec.ParentID,
		OrganizationID: rec.InitOrganizationID, Arrived: rec.ReceivedAt,
		Ask: admission.Resources{Memory: l.Memory, MilliCPUs: admission.MilliCPUs(l.CPUs), Pids: l.Pids},
	}
	for _, d := range l.Devices {
		if d.Count > 0 {
			if q.Ask.Devices == nil {
				q.Ask.Devices = make(map[string]int64)
			}
			q.Ask.Devices[d.Kind] += int64(d.Count)
		}
	}
	return q
}

// countDevices brings the budget's devices up to date, for a run that asks for
// some: what a machine has may change while the node lives.
func (n *Node) countDevices(ctx context.Context, q admission.Request) {
	if len(q.Ask.Devices) == 0 {
		return
	}
	n.devices.Lock()
	defer n.devices.Unlock()
	known, err := n.inventory()
	if err != nil {
		n.log.WarnContext(ctx, "some devices of this machine are not known", "error", err)
	}
	budget := n.gate.Snapshot().Budget
	now := limits.CountDevices(known)
	for kind, most := range n.cfg.Budget.Devices {
		now[kind] = min(now[kind], most)
	}
	if maps.Equal(now, budget.Devices) {
		return
	}
	budget.Devices = now
	if err := n.gate.SetBudget(budget); err != nil {
		n.log.WarnContext(ctx, "the devices of this machine could not be counted into the budget", "error", err)
	}
}

// admit waits until there is room for the run and returns what gives the room
// back.
func (n *Node) admit(ctx context.Context, a *activeRun, rec *ledger.Record, l limits.Limits) (release func(), err error) {
	began := time.Now()
	q := n.request(rec, l)
	n.countDevices(ctx, q)
	err = n.gate.Enqueue(q)
	a.arrived()
	if err != nil {
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
	giveBack := release // the result is about to be another
	return func() { a.left.Store(true); giveBack() }, nil
}

// togetherFor bounds how long a start waits for the others that arrived with it
// and whose limits are still being found out.
const togetherFor = time.Second

// arrivals is runs that are taken into work together: none begins before all
// are in the queue, so that they begin in their turns.
type arrivals struct {
	left    atomic.Int64
	release func()
}

// together begins arrivals, for as long as the caller names their runs.
func (n *Node) together() *arrivals {
	g := &arrivals{release: n.gate.Hold()}
	g.left.Store(1)
	return g
}

// one adds a run. The function that it returns is called when the run is in the
// queue, or will not be; more than once does no harm.
func (g *arrivals) one() (arrived func()) {
	g.left.Add(1)
	return sync.OnceFunc(g.done)
}

// all says that there are no more.
func (g *arrivals) all() {
	time.AfterFunc(togetherFor, g.release)
	g.done()
}

func (g *arrivals) done() {
	if g.left.Add(-1) == 0 {
		g.release()
	}
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
