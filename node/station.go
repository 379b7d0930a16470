package node

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/runtime"
)

// About is what the node's administrator is told of it and the node itself does
// not know.
type About struct {
	Version string
	// Server is the server's address.
	Server string
	// Managed tells that the node started the runtime itself.
	Managed bool
	Runtime func() runtime.Info
}

// adminView is the node as its administrator sees it.
type adminView struct {
	*Node
	about   About
	started time.Time
}

// Station returns the administrator's view of the node.
func (n *Node) Station(a About) admin.Station {
	return &adminView{Node: n, about: a, started: time.Now().UTC()}
}

// pageSize is how many records are read from the ledger at a time, so that no
// transaction waits for a slow reader.
const pageSize = 256

// Runs implements admin.Station.
func (s *adminView) Runs(ctx context.Context, q admin.RunQuery, fn func(*admin.Run) error) error {
	if !q.All {
		return s.openRuns(ctx, fn)
	}
	for below := int64(0); ; {
		page, err := s.ledger.Page(below, pageSize)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, rec := range page {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(s.run(rec)); err != nil {
				return err
			}
		}
		below = page[len(page)-1].RunID
	}
}

// openRuns are those that neither wait for room nor are over. The ledger is not searched
// for them: it may hold many thousands of others.
func (s *adminView) openRuns(ctx context.Context, fn func(*admin.Run) error) error {
	var ids []int64
	for _, a := range s.activeRuns() {
		ids = append(ids, a.id)
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := s.ledger.Get(id)
		if errors.Is(err, ledger.ErrNotFound) {
			continue // it could not be written down, and is about to be refused
		}
		if err != nil {
			return err
		}
		if r := s.run(rec); r.State != admin.Queued && !r.State.Over() {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *adminView) run(rec *ledger.Record) *admin.Run {
	r := &admin.Run{
		ID: rec.RunID, Task: rec.TaskID, Job: rec.JobID, Parent: rec.ParentID,
		Organization: rec.InitOrganizationID, User: rec.InitUserID,
		Image: rec.Image, Pinned: rec.Pinned, File: rec.File, State: s.state(rec), Attempt: rec.Attempt, KillWanted: rec.KillWanted,
		ReceivedAt: rec.ReceivedAt, AdmittedAt: rec.AdmittedAt, StartedAt: rec.StartedAt, EndedAt: rec.EndedAt,
		FinishedAt: rec.FinishedAt, DeliveredAt: rec.DeliveredAt,
	}
	r.OrganizationName = s.organization(r.Organization)
	r.Approval = shownApproval(rec)
	if a := s.activeRun(rec.RunID); a != nil && r.State == admin.Preparing {
		if p := a.doing.Load(); p != nil {
			r.Doing = &admin.ImageProgress{Doing: p.Doing, Done: p.Done, Total: p.Total}
		}
	}
	if rec.State.Final() {
		r.Accounting = shownAccounting(rec, rec.Use)
		r.Outcome = &admin.Outcome{
			Reason: rec.Reason, Status: rec.Status, Message: rec.Message, ExitCode: rec.ExitCode, Started: !rec.StartedAt.IsZero(),
		}
	}
	return r
}

// organization is the name of one, "" where it is not known.
func (s *adminView) organization(id int64) string {
	switch mine := s.session.identity(); {
	case mine == nil:
		return "" // not logged in yet
	case mine.OrganizationID == id:
		return mine.OrganizationName
	}
	return s.senders.known(id)
}

// state tells how far a run has come, in the administrator's words.
func (n *Node) state(rec *ledger.Record) admin.State {
	switch rec.State {
	case ledger.Received:
		if a := n.activeRun(rec.RunID); a != nil && a.held.Load() && waitsForApproval(rec) { // and was not answered just now
			return admin.Held
		}
		return admin.Queued
	case ledger.Preparing:
		return admin.Preparing
	case ledger.Starting:
		if a := n.activeRun(rec.RunID); a != nil && a.running.Load() {
			return admin.Running
		}
		return admin.Starting
	case ledger.Exited:
		return admin.Delivering
	}
	return admin.Done
}

func (n *Node) activeRun(id int64) *activeRun {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.active[id]
}

// record returns a run's record, or admin.ErrNotFound.
func (s *adminView) record(id int64) (*ledger.Record, error) {
	rec, err := s.ledger.Get(id)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, admin.Problemf(admin.ErrNotFound, "this node knows no run %d: `v6node ps -a` lists those it knows", id)
	}
	return rec, err
}

// living returns the record of a run whose algorithm runs, or admin.ErrState.
func (s *adminView) living(id int64) (*ledger.Record, error) {
	rec, err := s.record(id)
	if err != nil {
		return nil, err
	}
	if st := s.state(rec); st != admin.Running && st != admin.Starting {
		return nil, admin.Problemf(admin.ErrState, "run %d does not run: it is %s", id, st)
	}
	return rec, nil
}

// Inspect implements admin.Station.
func (s *adminView) Inspect(ctx context.Context, id int64) (*admin.Inspection, error) {
	rec, err := s.record(id)
	if err != nil {
		return nil, err
	}
	out := &admin.Inspection{Run: *s.run(rec), Node: s.instance}
	decided, limit := rec.Policy, rec.Limits
	if a := s.activeRun(id); a != nil && !rec.State.Final() { // what it will be on record with
		decided, limit = cmp.Or(a.decided.Load(), decided), cmp.Or(limit, a.limit.Load())
	}
	if decided != nil {
		out.Policy = &admin.Decision{Allowed: decided.Allowed, Reason: decided.Reason}
	}
	if limit != nil {
		asked := shownLimits(*limit, rec.Devices)
		out.Limits.Asked = &asked
	}
	out.Limits.Enforce = s.cfg.Enforce
	out.Connections = s.shownConnections(rec)
	path, there := s.logFile(rec)
	if there || !rec.State.Final() {
		out.LogPath = path
	}
	if rec.State.Final() {
		return out, nil
	}
	d, err := s.engine.Inspect(ctx, id)
	switch {
	case errors.Is(err, engine.ErrVanished):
		return out, nil // nothing was made yet
	case err != nil:
		out.Problems = append(out.Problems, err.Error())
		return out, nil
	}
	out.Sandbox = &admin.Sandbox{
		ID: d.Sandbox.ID, Ready: d.Sandbox.Ready, CreatedAt: d.Sandbox.CreatedAt, Handler: d.Sandbox.Handler,
		NetNS: d.Sandbox.NetNS, Cgroup: d.Cgroup, PID: d.Sandbox.PID,
		UserNS: d.Sandbox.Annotations[engine.AnnotationUsers],
	}
	if c := d.Container; c != nil {
		out.Container = &admin.Container{
			ID: c.ID, State: string(c.State), ImageID: c.ImageRef, CreatedAt: c.CreatedAt, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt,
			ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, PID: c.PID,
		}
		out.EnvNames = c.EnvNames
		for _, m := range c.Mounts {
			out.Mounts = append(out.Mounts, admin.Mount{Source: m.HostPath, Destination: m.ContainerPath, ReadOnly: m.ReadOnly})
		}
	}
	effective := effectiveLimits(d.Effective)
	out.Limits.Effective = &effective
	u, err := s.engine.Usage(id)
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
		return out, nil
	}
	if rec.EndedAt.IsZero() && !rec.StartedAt.IsZero() {
		rec.EndedAt = time.Now() // so far
	}
	out.Accounting = shownAccounting(rec, useOf(u))
	return out, nil
}

// shownLimits are the limits that a run was given.
func shownLimits(l limits.Limits, devices []string) admin.Limits {
	out := admin.Limits{
		Memory: l.Memory, MemorySwap: l.MemorySwap, MemoryReservation: l.MemoryReservation, CPUs: l.CPUs, CPUShares: l.CPUShares,
		CpusetCPUs: l.CpusetCpus, CpusetMems: l.CpusetMems, Pids: l.Pids, ShmSize: l.ShmSize, TmpfsSize: l.TmpfsSize,
		InputSize: l.InputSize, OutputSize: l.OutputSize, ScratchSize: l.ScratchSize, LogSize: l.LogSize, Devices: devices, OOMScoreAdj: l.OOMScoreAdj, TimeoutSeconds: l.Timeout.Seconds(),
	}
	for _, u := range l.Ulimits {
		out.Ulimits = append(out.Ulimits, admin.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return out
}

// effectiveLimits are those that a cgroup has.
func effectiveLimits(r runtime.Resources) admin.Limits {
	out := admin.Limits{
		Memory: r.MemoryLimit, MemorySwap: r.MemorySwap, MemoryReservation: r.MemoryReservation, CPUShares: r.CPUShares,
		CpusetCPUs: r.CpusetCpus, CpusetMems: r.CpusetMems, Pids: r.PidsLimit,
	}
	if r.CPUQuota > 0 && r.CPUPeriod > 0 {
		out.CPUs = float64(r.CPUQuota) / float64(r.CPUPeriod)
	}
	return out
}

// logFile is where a run's log is or will be, and whether it is there.
func (s *adminView) logFile(rec *ledger.Record) (string, bool) {
	ws := s.files.Open(rec.RunID)
	for _, path := range []string{ws.LogFile(), ws.KeptLogFile()} {
		if _, err := os.Stat(filepath.Dir(path)); err == nil {
			return path, true
		}
	}
	return ws.LogFile(), false
}

// Logs implements admin.Station.
func (s *adminView) Logs(ctx context.Context, id int64, o admin.LogOptions, fn func(*admin.LogLine) error) error {
	rec, err := s.record(id)
	if err != nil {
		return err
	}
	path, there := s.logFile(rec)
	if !there && rec.State.Final() {
		return admin.Problemf(admin.ErrNotFound, "the log of run %d is not here any more, or it never had one: section gc.logs of the configuration says how long logs are kept", id)
	}
	send := func(l runtime.LogLine) error {
		if l.Time.Before(o.Since) {
			return nil
		}
		if l.Gap {
			return fn(&admin.LogLine{Time: l.Time, Text: []byte(gapText(l.Dropped))})
		}
		return fn(&admin.LogLine{Time: l.Time, Stream: l.Stream, Text: slices.Clone(l.Text), Partial: l.Partial})
	}
	from, err := s.pastLog(ctx, path, o, send)
	if err != nil || !o.Follow {
		return err
	}
	// Following ends with the algorithm: the follower then reads what is left.
	alive, ended := context.WithCancel(ctx)
	defer ended()
	if a := s.activeRun(id); a != nil {
		stop := context.AfterFunc(a.ran, ended)
		defer stop()
	} else {
		ended()
	}
	return s.follower.Follow(alive, path, from, func(l runtime.LogLine, _ runtime.LogPos) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return send(l)
	})
}

// pastLog sends what a log holds, or the last o.Tail lines of it, and returns
// how far it has read. A log that is not there yet is empty.
func (s *adminView) pastLog(ctx context.Context, path string, o admin.LogOptions, send func(runtime.LogLine) error) (runtime.LogPos, error) {
	var last []runtime.LogLine
	take := func(l runtime.LogLine) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if o.Tail == nil {
			return send(l)
		}
		if *o.Tail == 0 {
			return nil
		}
		l.Text = slices.Clone(l.Text)
		if len(last) == *o.Tail {
			last = last[1:]
		}
		last = append(last, l)
		return nil
	}
	var next runtime.LogPos
	var err error
	if o.Follow {
		// A line without an end is left to the follower.
		next, err = runtime.ReadLogFiles(path, next, func(l runtime.LogLine, _ runtime.LogPos) error { return take(l) })
	} else {
		err = runtime.ReadWholeLog(path, take)
	}
	for _, l := range last {
		if err == nil {
			err = send(l)
		}
	}
	return next, err
}

// Stats implements admin.Station.
func (s *adminView) Stats(ctx context.Context, runs []int64) ([]admin.Usage, error) {
	for _, id := range runs {
		if _, err := s.record(id); err != nil {
			return nil, err
		}
	}
	var out []admin.Usage
	for _, a := range s.activeRuns() {
		if !a.running.Load() || (len(runs) > 0 && !slices.Contains(runs, a.id)) {
			continue
		}
		u, err := s.engine.Usage(a.id)
		if err != nil {
			continue // it has just ended
		}
		rec, err := s.ledger.Get(a.id)
		if err != nil {
			return nil, err
		}
		limit := u.MemoryLimit
		if limit == 0 {
			limit = s.gate.Snapshot().Budget.Memory
		}
		out = append(out, admin.Usage{
			Run: a.id, Task: a.taskID, Time: time.Now().UTC(), StartedAt: rec.StartedAt,
			CPUNanos: u.CPUNanos, ThrottledNanos: u.ThrottledNanos, Memory: u.Memory, MemoryLimit: limit,
			Pids: u.Pids, PidsLimit: u.PidsLimit, ReadBytes: u.ReadBytes, WrittenBytes: u.WrittenBytes,
		})
	}
	slices.SortFunc(out, func(a, b admin.Usage) int { return int(a.Run - b.Run) })
	return out, ctx.Err()
}

// Top implements admin.Station.
func (s *adminView) Top(ctx context.Context, id int64) ([]admin.Process, error) {
	if _, err := s.living(id); err != nil {
		return nil, err
	}
	pids, err := s.engine.Processes(ctx, id)
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	return processes(pids)
}

// Kill implements admin.Station.
func (s *adminView) Kill(ctx context.Context, id int64) error {
	rec, err := s.record(id)
	if err != nil {
		return err
	}
	if rec.State.Final() {
		return admin.Problemf(admin.ErrState, "run %d has ended already: its status is %q", id, rec.Status)
	}
	a := s.activeRun(id)
	if a == nil {
		return admin.Problemf(admin.ErrState, "run %d is not in work at this moment: try again", id)
	}
	s.killOne(ctx, id, killedHere)
	return nil
}

// Update implements admin.Station.
func (s *adminView) Update(ctx context.Context, id int64, c admin.LimitChange) (*admin.Limits, error) {
	rec, err := s.living(id)
	if err != nil {
		return nil, err
	}
	var l limits.Limits
	if rec.Limits != nil {
		l = *rec.Limits
	}
	for _, f := range []struct {
		from *int64
		to   *int64
	}{{c.Memory, &l.Memory}, {c.MemorySwap, &l.MemorySwap}, {c.MemoryReservation, &l.MemoryReservation}, {c.CPUShares, &l.CPUShares}, {c.Pids, &l.Pids}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if c.CPUs != nil {
		l.CPUs = *c.CPUs
	}
	if c.CpusetCPUs != nil {
		l.CpusetCpus = *c.CpusetCPUs
	}
	if c.CpusetMems != nil {
		l.CpusetMems = *c.CpusetMems
	}
	if t := c.TimeoutSeconds; t != nil {
		if !(*t >= 0 && *t <= limits.MaxTimeout.Seconds()) { // also refuses NaN
			return nil, admin.Problemf(admin.ErrInvalid, "a timeout of %v seconds is not between 0 and %v", *t, limits.MaxTimeout)
		}
		l.Timeout = time.Duration(*t * float64(time.Second))
	}
	if n := c.LogSize; n != nil {
		if *n != 0 && *n < limits.MinLog {
			return nil, admin.Problemf(admin.ErrInvalid, "a log of %d bytes is smaller than the smallest that works, %s", *n, units.FormatSize(limits.MinLog))
		}
		l.LogSize = *n
	}
	if bad := l.Check(); len(bad) > 0 {
		return nil, admin.Problemf(admin.ErrInvalid, "%s", bad[0])
	}
	if err := s.gate.Update(id, s.request(rec, l)); err != nil && !errors.Is(err, admission.ErrUnknown) {
		return nil, admin.Problemf(admin.ErrInvalid, "%v", err)
	}
	r, err := s.inForce(ctx, id, c, l)
	if err != nil {
		return nil, err
	}
	if _, err := s.ledger.Update(id, func(rec *ledger.Record) error { rec.Limits = &l; return nil }); err != nil {
		return nil, err
	}
	s.tell(admin.EventUpdated, rec, "limits changed by the administrator")
	out := effectiveLimits(r)
	out.TimeoutSeconds, out.LogSize = l.Timeout.Seconds(), l.LogSize
	return &out, nil
}

// inForce changes what the kernel holds, if any of that is to change, and
// returns what it then holds.
func (s *adminView) inForce(ctx context.Context, id int64, c admin.LimitChange, l limits.Limits) (runtime.Resources, error) {
	if c.TimeoutSeconds, c.LogSize = nil, nil; c.Empty() {
		d, err := s.engine.Inspect(ctx, id)
		if err != nil {
			return runtime.Resources{}, err
		}
		return d.Effective, nil
	}
	r, err := s.engine.Update(ctx, id, engine.Resources(l))
	if err != nil {
		return r, admin.Problemf(admin.ErrInvalid, "the limits of run %d stay as they were: %v", id, err)
	}
	return r, nil
}

// Events implements admin.Station.
func (s *adminView) Events(ctx context.Context, o admin.EventOptions, fn func(*admin.Event) error) error {
	return s.journal.Read(ctx, o, fn)
}

// Queue implements admin.Station.
func (s *adminView) Queue(context.Context) ([]admin.Waiting, error) {
	snap := s.gate.Snapshot()
	out := make([]admin.Waiting, 0, len(snap.Queued))
	for _, w := range snap.Queued {
		rec, err := s.ledger.Get(w.RunID)
		if err != nil {
			continue // it has just left the queue
		}
		out = append(out, admin.Waiting{
			Position: w.Position, Run: w.RunID, Task: w.TaskID, Image: rec.Image, Organization: w.OrganizationID, OrganizationName: s.organization(w.OrganizationID),
			Since: w.Since, Needs: shownResources(w.Counted, 1), Reason: w.Reason,
		})
	}
	held, err := s.heldRuns()
	return append(out, held...), err
}

func shownResources(r admission.Resources, runs int64) admin.Resources {
	return admin.Resources{Memory: r.Memory, CPUs: float64(r.MilliCPUs) / 1000, Pids: r.Pids, Runs: runs, Devices: r.Devices}
}

// Info implements admin.Station.
func (s *adminView) Info(ctx context.Context) (*admin.Info, error) {
	rt := s.about.Runtime()
	snap := s.gate.Snapshot()
	out := &admin.Info{
		Node: admin.NodeInfo{
			Instance: s.instance, Version: s.about.Version, PID: os.Getpid(), StartedAt: s.started, StateDir: s.stateDir,
			Paused: snap.Paused, Memory: residentMemory(),
		},
		Session: s.session.info(s.about.Server),
		Runtime: admin.RuntimeInfo{
			Endpoint: rt.Endpoint, Managed: s.about.Managed, Name: rt.Name, Version: rt.Version, APIVersion: rt.APIVersion,
			CgroupDriver: string(rt.CgroupDriver), CgroupVersion: rt.CgroupVersion, AppArmor: rt.AppArmor, Seccomp: rt.Seccomp,
			Handler: s.cfg.Runtime.Handler, TellsDriver: rt.TellsDriver, Events: string(rt.Events), CDI: rt.CDI, MinMemory: rt.MinMemory,
		},
		Budget: admin.BudgetInfo{Total: shownResources(snap.Budget.Resources, snap.Budget.Runs), Used: shownResources(snap.Used.Resources, snap.Used.Runs)},
	}
	if id := s.session.identity(); id != nil {
		out.Node.ID, out.Node.Name, out.Node.Organization = id.NodeID, id.NodeName, id.OrganizationName
		out.Node.Collaboration, out.Node.Encrypted = id.CollaborationName, id.Encrypted
	}
	if info, err := os.Stat(filepath.Join(s.stateDir, pausedFile)); err == nil {
		out.Node.PausedAt = info.ModTime().UTC()
	}
	for _, c := range s.health.Ready(ctx).Items {
		if !c.OK {
			out.Lacking = append(out.Lacking, admin.Lack{Condition: c.Name, Message: c.Message})
		}
	}
	for _, h := range rt.Handlers {
		out.Runtime.Handlers = append(out.Runtime.Handlers, admin.Handler{Name: h.Name, UserNamespaces: h.UserNamespaces, RecursiveReadOnly: h.RecursiveReadOnly})
	}
	open, err := s.ledger.Unfinished()
	if err != nil {
		return nil, err
	}
	for _, rec := range open {
		switch s.state(rec) {
		case admin.Held:
			out.Runs.Held++
		case admin.Queued:
			out.Runs.Queued++
		case admin.Preparing, admin.Starting:
			out.Runs.Preparing++
		case admin.Running:
			out.Runs.Running++
		case admin.Delivering:
			out.Runs.Delivering++
		}
	}
	return out, nil
}

// residentMemory is this process's, 0 where it cannot be read.
func residentMemory() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

var _ admin.Station = (*adminView)(nil)
