package node

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/metrics"
	"github.com/v6node/v6node/runtime"
)

// Recorder is where the node counts what happens.
func (n *Node) Recorder() *metrics.Recorder { return n.metrics }

// metricKinds are the node's own tables, from which all labels come.
func metricKinds() metrics.Kinds {
	k := metrics.Kinds{Outcomes: make(map[string]string, len(statusOf)), Collected: collectedKinds}
	for reason, status := range statusOf {
		k.Outcomes[string(reason)] = string(status)
	}
	for _, t := range admin.EventTypes() {
		k.Events = append(k.Events, string(t))
	}
	return k
}

// measure counts an event of the journal and what it tells of a run. A run that
// an earlier start of the node began counts too.
func (n *Node) measure(kind admin.EventType, rec *ledger.Record) {
	n.metrics.Event(string(kind))
	switch kind {
	case admin.EventAdmitted:
		n.metrics.Phase(metrics.PhaseQueue, time.Since(rec.ReceivedAt))
	case admin.EventExited:
		ran := time.Duration(0)
		if !rec.StartedAt.IsZero() {
			ran = rec.FinishedAt.Sub(rec.StartedAt)
		}
		n.metrics.Finished(rec.Reason, ran)
	case admin.EventDelivered:
		n.metrics.Delivered(rec.Reason, time.Since(rec.FinishedAt))
	}
}

// openStates are the states of runs that are not over.
var openStates = []admin.State{admin.Held, admin.Queued, admin.Preparing, admin.Starting, admin.Running, admin.Delivering}

// Measure implements metrics.Source.
func (n *Node) Measure(context.Context) *metrics.Measurement {
	m := &metrics.Measurement{Runs: make(map[string]int, len(openStates)), Session: n.session.measure()}
	for _, s := range openStates {
		m.Runs[string(s)] = 0
	}
	for _, a := range n.activeRuns() {
		rec, err := n.ledger.Get(a.id)
		if err != nil { // it could not be written down, and is about to be refused
			rec = &a.rec
		}
		state := n.state(rec)
		if _, open := m.Runs[string(state)]; open {
			m.Runs[string(state)]++
		}
		if state == admin.Running {
			if r, ok := n.measureRun(rec); ok {
				m.Living = append(m.Living, r)
			}
		}
	}
	m.Runs[string(admin.Queued)] += n.idle()
	snap := n.gate.Snapshot()
	m.Paused = snap.Paused
	m.Admission = metrics.Admission{
		Queued: len(snap.Queued), Budget: measured(snap.Budget), Used: measured(snap.Used),
		Admitted: snap.Counters.Admitted, Backfilled: snap.Counters.Backfilled, Refused: snap.Counters.Refused, Stalls: snap.Counters.Stalls,
	}
	for _, w := range snap.Queued {
		m.Admission.OldestWait = max(m.Admission.OldestWait, time.Since(w.Since))
	}
	return m
}

// idle counts the runs that are to begin anew and that nobody drives yet.
func (n *Node) idle() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.interrupted {
		if _, driven := n.active[id]; !driven {
			count++
		}
	}
	return count
}

func (n *Node) measureRun(rec *ledger.Record) (metrics.Run, bool) {
	u, err := n.engine.Usage(rec.RunID)
	if err != nil {
		return metrics.Run{}, false // it has just ended
	}
	return metrics.Run{
		Run: strconv.FormatInt(rec.RunID, 10), Task: strconv.FormatInt(rec.TaskID, 10), Started: rec.StartedAt,
		CPU: time.Duration(u.CPUNanos), Throttled: time.Duration(u.ThrottledNanos),
		Memory: u.Memory, MemoryLimit: u.MemoryLimit, Pids: u.Pids, PidsLimit: u.PidsLimit,
		Read: u.ReadBytes, Written: u.WrittenBytes,
	}, true
}

func measured(b admission.Budget) metrics.Resources {
	return metrics.Resources{Runs: b.Runs, Memory: b.Memory, Pids: b.Pids, CPUs: float64(b.MilliCPUs) / 1000, Devices: b.Devices}
}

// timedEngine notes how long the steps of a start take.
type timedEngine struct {
	engine.Engine
	rec *metrics.Recorder
}

func (t *timedEngine) timed(p metrics.Phase, step func() error) error {
	began := time.Now()
	err := step()
	if err == nil {
		t.rec.Phase(p, time.Since(began))
	}
	return err
}

func (t *timedEngine) Open(ctx context.Context, s *engine.Spec) (id string, err error) {
	err = t.timed(metrics.PhaseSandbox, func() error { id, err = t.Engine.Open(ctx, s); return err })
	return id, err
}

func (t *timedEngine) Gateway(ctx context.Context, runID int64, sandboxID string, port int, h http.Handler, doors ...engine.Door) error {
	return t.timed(metrics.PhaseGateway, func() error { return t.Engine.Gateway(ctx, runID, sandboxID, port, h, doors...) })
}

func (t *timedEngine) Create(ctx context.Context, s *engine.Spec, sandboxID string) (id string, err error) {
	err = t.timed(metrics.PhaseCreate, func() error { id, err = t.Engine.Create(ctx, s, sandboxID); return err })
	return id, err
}

func (t *timedEngine) Start(ctx context.Context, containerID string) error {
	return t.timed(metrics.PhaseStart, func() error { return t.Engine.Start(ctx, containerID) })
}

// timedImages counts the pulls.
type timedImages struct {
	Images
	rec *metrics.Recorder
}

// PullImage implements Images. One that was cut off because its run has ended
// is no failure of the pull.
func (t *timedImages) PullImage(ctx context.Context, ref string, auth *runtime.Auth, o runtime.PullOptions) (*runtime.Image, error) {
	began := time.Now()
	img, err := t.Images.PullImage(ctx, ref, auth, o)
	size := int64(0)
	if err == nil {
		size = int64(img.Size)
	}
	if err == nil || ctx.Err() == nil {
		t.rec.Pulled(size, time.Since(began), err)
	}
	return img, err
}

var _ metrics.Source = (*Node)(nil)
