package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/policy"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/workspace"
)

func (n *Node) bestEffort() bool { return n.cfg.Enforce == config.EnforceBestEffort }

// limitsFor decides what a run may use.
func (n *Node) limitsFor(ctx context.Context, r *server.Run) (limits.Limits, error) {
	set := n.settings.Load().limits
	l, _, err := set.Resolve(n.subject(ctx, r))
	return l, unlessImage(ReasonLimit, err)
}

// unlessImage gives a rule's failure a reason, unless it is that the image was not
// found, which has a reason of its own.
func unlessImage(reason Reason, err error) error {
	var unresolved *image.Error
	if err == nil || errors.As(err, &unresolved) {
		return err
	}
	return refuse(reason, err)
}

// subject is a run as the rules of the configuration look at it.
func (n *Node) subject(ctx context.Context, r *server.Run) policy.Subject {
	return policy.Subject{
		Image: r.Image, UserID: r.InitUserID, OrganizationID: r.InitOrganizationID,
		OrganizationName: func() (string, error) { return n.api.OrganizationName(ctx, r.InitOrganizationID) },
		Digest: func() (digest, file string, err error) {
			resolved, err := n.resolver.Resolve(ctx, r.Image)
			return resolved.Digest, resolved.File, err
		},
		DigestOf: func(ref string) (string, error) {
			resolved, err := n.resolver.Resolve(ctx, ref)
			return resolved.Digest, err
		},
	}
}

// limitsOf are the limits that were decided for a run.
func (n *Node) limitsOf(rec *ledger.Record) limits.Limits {
	if rec.Limits == nil { // recorded by a version that did not
		return n.settings.Load().limits.Default
	}
	return *rec.Limits
}

// assignDevices chooses the devices of a run and writes them down, so that no
// other run gets those that are counted, also after a restart.
func (n *Node) assignDevices(rec *ledger.Record) (*ledger.Record, error) {
	ask := n.limitsOf(rec).Devices
	if len(ask) == 0 {
		return rec, nil
	}
	n.devices.Lock()
	defer n.devices.Unlock()
	known, err := n.inventory()
	if err != nil {
		n.log.Warn("some devices of this machine are not known", "error", err)
	}
	open, err := n.ledger.Unfinished()
	if err != nil {
		return nil, err
	}
	taken := func(cdi string) bool {
		return slices.ContainsFunc(open, func(o *ledger.Record) bool {
			if o.RunID == rec.RunID || o.State == ledger.Received || o.State.Final() || !slices.Contains(o.Devices, cdi) {
				return false
			}
			a := n.activeRun(o.RunID)
			return a == nil || !a.left.Load()
		})
	}
	picked, err := limits.Pick(ask, known, taken)
	if err != nil {
		return nil, refuse(ReasonLimit, fmt.Errorf("the run's devices cannot be given to it: %w", err))
	}
	return n.ledger.Update(rec.RunID, func(l *ledger.Record) error {
		l.Devices = picked
		return nil
	})
}

// verify compares a container's limits with those wanted. What differs stops the
// run, unless the configuration says otherwise; so does what cannot be found out.
func (n *Node) verify(ctx context.Context, s *engine.Spec, container string) error {
	err := n.engine.Verify(ctx, s, container)
	if err == nil {
		return nil
	}
	if n.bestEffort() {
		n.log.WarnContext(ctx, "a limit is not in force; the run goes on without it", "run", s.RunID, "error", err)
		return nil
	}
	return refuse(ReasonLimit, fmt.Errorf("the run was stopped because a limit is not in force: %w", err))
}

// overrun is why the node itself stopped an algorithm.
type overrun struct {
	reason  Reason
	message string
}

func (o *overrun) Error() string { return o.message }

// How often a run's use of the disk is measured. It is measured less often where
// that takes long, so that it costs a twentieth of one CPU at most.
const (
	measureEvery   = 250 * time.Millisecond
	measureSeldom  = 5 * time.Second
	measureBackoff = 20
	// sampleEvery is how often throttling is read while the algorithm runs.
	sampleEvery = time.Second
	// measureFailures in a row stop a run: what cannot be measured is not
	// bounded.
	measureFailures = 5
	// outputSlack is for what the file system adds to a result of exactly the
	// limit, and for the algorithm's own small files.
	outputSlack = 1 << 20
	// heldStep is by how much the free space must shrink until files without
	// a name are looked for.
	heldStep = 32 << 20
)

// guard watches the limits that no kernel holds: time and space on the disk. It
// returns the *overrun for which the run must be stopped, or nil when ctx ends.
func (n *Node) guard(ctx context.Context, rec *ledger.Record) error {
	m := &meter{node: n, runID: rec.RunID, jobID: rec.JobID}
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	var sampled time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if now, err := n.ledger.Get(rec.RunID); err == nil {
			rec = now // the limits may have been changed
		}
		m.own = rec.InputUse
		l := n.limitsOf(rec)
		if l.CPUs > 0 && time.Since(sampled) >= sampleEvery {
			// What the container's own group has counted goes with it.
			sampled = time.Now()
			_, _ = n.engine.Usage(rec.RunID) // its end says what went wrong
		}
		left := measureSeldom
		if l.Timeout > 0 {
			if left = time.Until(rec.StartedAt.Add(l.Timeout)); left <= 0 {
				return &overrun{ReasonTimeout, fmt.Sprintf("the algorithm was stopped: it had not ended after %v (limits.timeout): ask the node's administrator for more time or do less", l.Timeout)}
			}
		}
		began := time.Now()
		err := m.measure(ctx, l)
		var over *overrun
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &over):
			return over
		case err == nil:
			failures = 0
		default:
			failures++
			n.log.WarnContext(ctx, "a run's use of the disk cannot be measured", "run", rec.RunID, "error", err)
			if failures >= measureFailures && !n.bestEffort() {
				return &overrun{ReasonSpace, fmt.Sprintf("the algorithm was stopped because what it writes cannot be measured: %v", err)}
			}
		}
		pause := min(max(measureEvery, measureBackoff*time.Since(began)), measureSeldom)
		timer.Reset(min(pause, left))
	}
}

// meter measures what a run has on the disk.
type meter struct {
	node         *Node
	runID, jobID int64
	own          int64 // what the node itself has put there
	free         int64 // when files without a name were last looked for

	looked  bool               // for folders, once: they do not change while the run lives
	folders []workspace.Folder // that the run may change
}

func (m *meter) measure(ctx context.Context, l limits.Limits) error {
	ws := m.node.files.Open(m.runID)
	if err := m.measureFolders(ctx, ws); err != nil {
		return err
	}
	var used, bound int64
	for _, p := range []struct {
		limit, more int64
		use         func(limit int64) (int64, error)
		what, key   string
	}{
		{l.OutputSize, m.own + outputSlack, ws.OutputUse, "its output and what lies beside it", "limits.output_size"},
		{l.ScratchSize, 0, func(limit int64) (int64, error) { return ws.ScratchUse(m.jobID, limit) }, "its job's /mnt/tmp", "limits.scratch_size"},
	} {
		if p.limit == 0 {
			return nil // then nothing bounds the two together either
		}
		n, err := p.use(p.limit + p.more)
		if err != nil {
			return err
		}
		if n > p.limit+p.more {
			return tooMuch(p.what, p.limit, p.key)
		}
		used, bound = used+n, bound+p.limit+p.more
	}
	free, err := ws.FreeSpace()
	if err != nil {
		return err
	}
	if m.free == 0 || free > m.free {
		m.free = free
	}
	if m.free-free < heldStep {
		return nil
	}
	pids, err := m.node.engine.Processes(ctx, m.runID)
	if err != nil {
		return err
	}
	held, err := ws.HeldUse(pids)
	if err != nil {
		return err
	}
	m.free = free
	if used+held > bound {
		return tooMuch("files that it had deleted and still held open, with its output and /mnt/tmp,", l.OutputSize+l.ScratchSize, "limits.output_size and limits.scratch_size together")
	}
	return nil
}

// measureFolders holds the folders that the run may change to their size. What else
// changes them counts too: whoever works in a full one is stopped.
func (m *meter) measureFolders(ctx context.Context, ws *workspace.Run) error {
	if !m.looked {
		folders, err := ws.Folders()
		if err != nil {
			return err
		}
		m.looked, m.folders = true, folders
	}
	if len(m.folders) == 0 {
		return nil
	}
	pids, err := m.node.engine.Processes(ctx, m.runID)
	if err != nil {
		return err
	}
	for _, f := range m.folders {
		n, err := f.Use()
		if err != nil {
			return err
		}
		held, err := f.HeldUse(pids)
		if err != nil {
			return err
		}
		if n+held > f.Limit {
			return tooMuch(fmt.Sprintf("the folder of the database %q, with deleted files on its disk that the algorithm held open,", f.Label), f.Limit, "databases[].size_limit")
		}
	}
	return nil
}

func tooMuch(what string, limit int64, key string) error {
	return &overrun{ReasonSpace, fmt.Sprintf("the algorithm was stopped: %s took more than %s on the disk (%s): write less or ask the node's administrator for more", what, units.FormatSize(limit), key)}
}
