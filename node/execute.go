package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/internal/failpoint"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/payload"
	"github.com/v6node/v6node/node/policy"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/proxy"
	"github.com/v6node/v6node/runtime"
)

// finishTime bounds what is done for a run after its own context has ended:
// stopping it and undoing what was begun.
const finishTime = time.Minute

// drive takes a run from its record to its end: the algorithm is executed, the
// outcome is written down, delivered, and everything of the run removed.
func (n *Node) drive(own, ctx context.Context, a *activeRun, rec *ledger.Record, r *server.Run) {
	log := n.log.With("run", a.id, "task", a.taskID)
	log.InfoContext(ctx, "run received", "image", r.Image, "organization", r.InitOrganizationID)
	a.shorten(r)
	n.tell(admin.EventReceived, rec, "")
	out, err := n.inTurn(ctx, a, rec, r)
	n.conclude(own, ctx, a, out, err)
}

// inTurn executes a run when there is room for it. What no room could make
// allowed is refused before.
func (n *Node) inTurn(ctx context.Context, a *activeRun, rec *ledger.Record, r *server.Run) (*outcome, error) {
	if err := image.Check(r.Image); err != nil {
		return nil, err
	}
	for {
		if err := n.approval(ctx, a, rec, r); err != nil {
			return nil, err
		}
		out, err := n.inRoom(ctx, a, rec, r)
		if !errors.Is(err, errUnapproved) || ctx.Err() != nil {
			return out, err
		}
		n.log.InfoContext(ctx, "the image or the policies changed while a run waited for room: it needs an approval", "run", a.id)
		if err := n.undo(ctx, a.id); err != nil {
			return nil, err
		}
		a.left.Store(false)
	}
}

// inRoom waits for room and executes a run in it.
func (n *Node) inRoom(ctx context.Context, a *activeRun, rec *ledger.Record, r *server.Run) (*outcome, error) {
	limit, err := n.limitsFor(ctx, r)
	if err != nil {
		return nil, err
	}
	a.limit.Store(&limit)
	release, err := n.admit(ctx, a, rec, limit)
	if err != nil {
		return nil, err
	}
	defer release()
	a.admittedAt = time.Now().UTC()
	return n.execute(ctx, a, r, limit)
}

// conclude is the second half of every run's life, however its first half
// ended: it decides the outcome, keeps it, delivers it and cleans. From here on
// the run belongs to the node: a kill that comes now changes nothing any more.
func (n *Node) conclude(own, ctx context.Context, a *activeRun, out *outcome, err error) {
	switch {
	case killed(ctx):
		if out, err = n.killedOutcome(own, ctx, a); err != nil {
			n.log.ErrorContext(own, "a killed run is left to the next start", "run", a.id, "error", err)
			return
		}
	case own.Err() != nil:
		// The node stops. A started algorithm goes on without us; anything
		// less is begun anew by the next start.
		return
	case n.runAgain(own, a, out, err):
		return
	case err != nil:
		o := classify(err)
		out = &o
	}
	if out.reason != ReasonCompleted && out.reason != ReasonGone {
		n.log.WarnContext(own, "run failed", "run", a.id, "task", a.taskID, "reason", string(out.reason), "why", out.message)
	}
	decide := func(r *ledger.Record) error {
		if r.State.Final() {
			return nil // decided before a restart
		}
		r.State = ledger.Exited
		r.Reason, r.Status = string(out.reason), string(statusOf[out.reason])
		r.Message, r.ExitCode, r.HasOutput = out.message, out.exitCode, out.output
		r.Use, r.EndedAt, r.FinishedAt = a.use, a.endedAt, time.Now().UTC()
		r.Connections = n.trafficOf(a.id).counts()
		if d := a.decided.Load(); d != nil { // a run that was taken over has it on record
			r.Policy = d
		}
		return nil
	}
	// Without the outcome on disk nothing may be told to the server: after a crash
	// the algorithm could run again.
	var rec *ledger.Record
	err = n.untilWritten(own, a.id, "the outcome of a run could not be written down, trying again", func() (err error) {
		rec, err = n.ledger.Update(a.id, decide)
		if err != nil && n.unbegun(a) {
			// No algorithm has run, so nothing is lost if a crash forgets this.
			n.log.ErrorContext(own, "a run is refused because the node cannot write to its disk; make room in the state directory", "run", a.id, "error", err)
			rec = new(a.rec)
			err = decide(rec)
			n.interrupt(rec)
		}
		return err
	})
	if err != nil {
		return // the next start decides again
	}
	failpoint.Reached(failpoint.Decided)
	n.tell(admin.EventExited, rec, string(out.reason))
	n.settle(own, a, rec)
}

// unbegun tells whether a run's algorithm has certainly not been started.
func (n *Node) unbegun(a *activeRun) bool {
	rec, err := n.ledger.Get(a.id)
	if errors.Is(err, ledger.ErrNotFound) {
		return true
	}
	return err == nil && rec.State.Unbegun()
}

// settle delivers a decided run, if the server still has it, and removes what is left of it.
func (n *Node) settle(ctx context.Context, a *activeRun, rec *ledger.Record) {
	if rec.State == ledger.Exited {
		if n.auditEnd(ctx, rec) != nil {
			return // ctx has ended; the next start goes on
		}
		failpoint.Reached(failpoint.AuditedEnd)
		if n.handOver(ctx, a, rec) != nil {
			return // as above
		}
		if now, err := n.ledger.Get(rec.RunID); err == nil {
			rec = now
		}
		n.logEnd(ctx, rec)
	}
	if err := n.clean(ctx, rec); err != nil {
		n.log.WarnContext(ctx, "a run's remains are left for the next start", "run", rec.RunID, "error", err)
	}
}

// attempt prepares and starts the algorithm once.
func (n *Node) attempt(ctx context.Context, a *activeRun, r *server.Run, limit limits.Limits) (*ledger.Record, string, error) {
	began := time.Now()
	rec, err := n.ledger.Begin(a.id, func() any { return n.gate.Turns() }, func(l *ledger.Record) error {
		l.State = ledger.Preparing
		l.Attempt++
		l.Limits, l.Devices = &limit, nil
		l.BlobStored = r.BlobStored
		l.AdmittedAt = a.admittedAt
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("write down that the run begins: %w", err)
	}
	failpoint.Reached(failpoint.Begun)
	if rec, err = n.assignDevices(rec); err != nil {
		return nil, "", err
	}
	p, err := n.prepare(ctx, a, rec, r)
	if err != nil {
		return nil, "", err
	}
	prepared := time.Since(began)
	if err := n.start(ctx, a, p); err != nil {
		return nil, "", err
	}
	n.log.InfoContext(ctx, "algorithm started", "run", a.id, "image", p.pinned, "attempt", rec.Attempt,
		"prepared_in", prepared.Round(time.Millisecond), "started_in", (time.Since(began) - prepared).Round(time.Millisecond))
	return rec, p.container, nil
}

// prepared is a run whose container exists.
type prepared struct {
	pinned, sandbox, container string
	spec                       *engine.Spec
	inputUse                   int64 // of the node's own files beside the output
	imageTook                  time.Duration
}

// prepare does everything up to a created container, side by side where one
// step does not need the other.
func (n *Node) prepare(ctx context.Context, a *activeRun, rec *ledger.Record, r *server.Run) (*prepared, error) {
	databases := n.settings.Load().databases // the same for files and connections
	plan, err := n.planFor(ctx, rec, r, databases)
	if err != nil {
		return nil, err
	}
	files, err := n.workspaceSpec(rec, r, plan, databases)
	if err != nil {
		return nil, err
	}
	files.Input = func(f *os.File) (*payload.Object, error) {
		return n.inputFile(ctx, a, r, n.limitsOf(rec).InputSize, f)
	}
	ws, err := n.files.Prepare(ctx, files)
	if err != nil {
		return nil, err
	}
	failpoint.Reached(failpoint.Files)
	spec := n.engineSpec(rec, ws)
	p := prepared{spec: spec}
	var token string
	var resolved image.Resolved
	var img *image.Provided
	g, gctx := errgroup.WithContext(ctx)
	g.Go(n.safe(ctx, func() (err error) {
		token, err = n.register(gctx, r)
		failpoint.Reached(failpoint.Registered)
		return err
	}))
	g.Go(n.safe(ctx, func() (err error) {
		began := time.Now()
		resolved, img, err = n.ensureImage(gctx, a, r)
		if errors.Is(err, runtime.ErrNotReady) {
			err = asHitch(gctx, err)
		}
		p.imageTook = time.Since(began)
		failpoint.Reached(failpoint.Image)
		return err
	}))
	g.Go(n.safe(ctx, func() (err error) {
		p.sandbox, err = n.engine.Open(gctx, spec)
		failpoint.Reached(failpoint.Sandbox)
		return asHitch(gctx, err)
	}))
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if uid, known := userOf(img.Image); known {
		if err := ws.CheckAccess(uid); err != nil {
			return nil, err
		}
	}
	if err := ws.WriteToken(token); err != nil {
		return nil, err
	}
	if p.inputUse, err = ws.OutputUse(0); err != nil {
		return nil, err
	}
	p.pinned = resolved.Pinned
	spec.Image, spec.ImageName, spec.ImageFile = img.Name, resolved.Pinned, resolved.File
	g, gctx = errgroup.WithContext(ctx)
	g.Go(n.safe(ctx, func() error {
		err := n.openGateway(gctx, rec, p.sandbox, token, plan)
		failpoint.Reached(failpoint.Gateway)
		return err
	}))
	g.Go(n.safe(ctx, func() (err error) {
		p.container, err = n.engine.Create(gctx, spec, p.sandbox)
		failpoint.Reached(failpoint.Created)
		return asHitch(gctx, err)
	}))
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if len(spec.Rlimits) > 0 {
		// After the start it would be too late for the first instructions.
		if err := n.verify(ctx, spec, p.container); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// start starts the created container. The ledger knows of it before the
// runtime does.
func (n *Node) start(ctx context.Context, a *activeRun, p *prepared) error {
	rec, err := n.ledger.Update(a.id, func(l *ledger.Record) error {
		l.State, l.Function, l.Policy = ledger.Starting, *a.function, a.decided.Load()
		l.Pinned, l.SandboxID, l.ContainerID = p.pinned, p.sandbox, p.container
		l.StartedAt, l.InputUse, l.ImageTook = time.Now().UTC(), p.inputUse, p.imageTook
		return nil
	})
	if err != nil {
		return fmt.Errorf("write down that the algorithm starts: %w", err)
	}
	failpoint.Reached(failpoint.Starting)
	if err := n.audit.Append(entryOf(audit.Started, rec)); err != nil {
		return err
	}
	failpoint.Reached(failpoint.AuditedStart)
	if ctx.Err() != nil {
		return ctx.Err() // a kill that came in time
	}
	// A start under way is not given up half-way: its result is wanted.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	if err := n.engine.Start(whole, p.container); err != nil {
		l, known := n.afterStart(ctx, a.id, p.container)
		switch {
		case known && !l.Started:
			return asHitch(ctx, err)
		case !known || !errors.Is(err, runtime.ErrNotReady):
			return asStart(ctx, err)
		}
		// The runtime went away while it started the algorithm.
		n.log.WarnContext(ctx, "the runtime did not say that an algorithm was started, and it was", "run", a.id, "error", err)
		var cancel context.CancelFunc
		whole, cancel = context.WithTimeout(context.WithoutCancel(ctx), finishTime)
		defer cancel()
	}
	failpoint.Reached(failpoint.Started)
	if err := n.verify(whole, p.spec, p.container); err != nil {
		return errors.Join(err, n.engine.Stop(whole, p.container, 0))
	}
	failpoint.Reached(failpoint.Verified)
	return nil
}

// attend watches a started container to its end, tells the server that it is
// active, ships its log and judges what it leaves.
func (n *Node) attend(ctx context.Context, a *activeRun, rec *ledger.Record, container string) (*outcome, error) {
	ws := n.files.Open(a.id)
	a.running.Store(true)
	n.tell(admin.EventStarted, rec, "")
	defer func() {
		a.running.Store(false)
		a.ended()
	}()
	alive, ended := context.WithCancel(ctx)
	defer ended()
	var side errgroup.Group
	side.Go(n.safe(ctx, func() error { n.tellActive(ctx, a); return nil }))
	if n.cfg.ShareAlgorithmLogs {
		side.Go(n.safe(ctx, func() error {
			if err := n.shipLog(alive, a, ws); err != nil {
				n.log.WarnContext(ctx, "the log could not be sent while the algorithm runs", "run", a.id, "error", err)
			}
			return nil
		}))
	}
	side.Go(n.safe(ctx, func() error { n.keepTraffic(alive, a.id); return nil }))
	within, exceeded := context.WithCancelCause(ctx)
	defer exceeded(nil)
	side.Go(n.watch(ctx, exceeded, func() error { return n.guard(alive, rec) }))
	side.Go(n.watch(ctx, exceeded, func() error { return n.keepLog(alive, rec, container) }))
	exit, err := n.engine.Wait(within, a.id, container)
	failpoint.Reached(failpoint.Ended)
	var over *overrun
	if err != nil && (killed(ctx) || errors.As(context.Cause(within), &over)) {
		var stopErr error
		if exit, stopErr = n.stop(a.own, a.id, container); stopErr != nil {
			ended()
			_ = side.Wait() // they report by themselves
			return nil, stopErr
		}
		a.halted = true
	}
	a.halted, a.exit = a.halted || err == nil, exit
	if err == nil || over != nil || killed(ctx) {
		settleLog(ctx, ws.LogFile())
	}
	ended()
	_ = side.Wait() // they report by themselves
	if a.halted {
		n.trafficOf(a.id).settle(ctx)
	}
	n.ended(ctx, a, exit)
	if over != nil && !killed(ctx) {
		n.log.WarnContext(ctx, "the algorithm was stopped", "run", a.id, "why", over.message, "error", err)
		if over.reason == ReasonTimeout {
			n.tell(admin.EventTimeout, rec, over.message)
		}
		return &outcome{reason: over.reason, message: over.message}, nil
	}
	if err != nil {
		return nil, err
	}
	f, size, outErr := ws.Output()
	if f != nil {
		// Before the ledger says that it is there.
		if err := f.Sync(); err != nil {
			n.log.WarnContext(ctx, "the result may not be on the disk yet", "run", a.id, "error", err)
		}
		outErr = errors.Join(outErr, f.Close())
	}
	limit := n.limitsOf(rec)
	if now, err := n.ledger.Get(a.id); err == nil {
		limit = n.limitsOf(now) // they may have been changed meanwhile
	}
	out := judge(exit, size, limit, outErr)
	if out.reason == ReasonCrashed || out.reason == ReasonNoOutput {
		if err := n.disks.try(n.files.Dir); err != nil {
			out.message += fmt.Sprintf("; the node's disk for the files of runs cannot be written to (%v), which may be why: ask the node's administrator to look after it", err)
		}
	}
	n.log.InfoContext(ctx, "algorithm ended", "run", a.id, "exit_code", exit.Code, "outcome", string(out.reason),
		"ran", max(0, exit.FinishedAt.Sub(exit.StartedAt)).Round(time.Millisecond), "output_bytes", size, "peak_memory", exit.PeakMemory)
	return &out, nil
}

// ended notes when an algorithm ended and what it has used. exit is nil where
// the runtime did not tell of the end.
func (n *Node) ended(ctx context.Context, a *activeRun, exit *engine.Exit) {
	a.endedAt = time.Now().UTC()
	if exit != nil && !exit.FinishedAt.IsZero() {
		a.endedAt = exit.FinishedAt.UTC()
	}
	a.use = n.account(ctx, a.id)
	if a.use != nil && exit != nil && exit.OOMKilled {
		a.use.OOMKills = max(a.use.OOMKills, 1) // the runtime may know more than the kernel tells
	}
	if a.use != nil && a.use.OOMKills > 0 {
		n.tell(admin.EventOOM, &a.rec, "the kernel killed a process of it for want of memory")
	}
}

// tellActive tells server and collaboration that the algorithm runs.
func (n *Node) tellActive(ctx context.Context, a *activeRun) {
	if ctx.Err() != nil {
		return // it is to end
	}
	err := n.api.MarkActive(ctx, a.id)
	if err != nil && ctx.Err() == nil && !errors.Is(err, server.ErrAlreadyFinished) {
		n.log.WarnContext(ctx, "the server was not told that a run is active", "run", a.id, "error", err)
	}
	failpoint.Reached(failpoint.Active)
	n.emitStatus(a.id, server.StatusActive)
}

func (n *Node) emitStatus(runID int64, s server.Status) {
	rec, err := n.ledger.Get(runID)
	if err != nil {
		return // it tells only sooner what the server's REST interface tells too
	}
	n.api.EmitStatus(server.StatusChange{RunID: rec.RunID, TaskID: rec.TaskID, ParentID: rec.ParentID, Status: s})
}

// register tells the server that the run has begun and gets its token. It
// waits for a server that is away: a run is not failed for that.
func (n *Node) register(ctx context.Context, r *server.Run) (string, error) {
	began := time.Now()
	if err := n.persist(ctx, "tell the server that the run begins", func() error {
		return n.api.MarkStarted(ctx, r.ID, began)
	}); err != nil {
		return "", err
	}
	var token string
	err := n.persist(ctx, "get the algorithm's token", func() (err error) {
		token, err = n.api.ContainerToken(ctx, r.TaskID, r.Image)
		return err
	})
	return token, err
}

// persist repeats a call to the server until it succeeds, fails for good, or
// ctx ends.
func (n *Node) persist(ctx context.Context, what string, call func() error) error {
	retry := backoff.New(backoff.Server)
	for {
		err := call()
		if err == nil {
			return nil
		}
		again, wait := server.Passing(err)
		if !again || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		wait = max(wait, retry.Next())
		n.log.WarnContext(ctx, "the server did not answer as it should, trying again", "doing", what, "error", err, "wait", wait)
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// untilWritten repeats what writes to the node's disk until that succeeds, or ctx ends
// with its error. failed says what could not be done.
func (n *Node) untilWritten(ctx context.Context, runID int64, failed string, write func() error) error {
	retry := backoff.New(backoff.Server)
	for {
		err := write()
		if err == nil {
			return nil
		}
		wait := retry.Next()
		n.log.ErrorContext(ctx, failed+"; make room in the state directory", "run", runID, "error", err, "wait", wait)
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// refused is the policy's refusal of a run, on record.
func (n *Node) refused(a *activeRun, rec *ledger.Record, pinned string, d policy.Decision) error {
	a.decided.Store(&ledger.Decision{Reason: d.Reason})
	return refuse(ReasonPolicy, errors.Join(errors.New(d.Reason), n.auditDecision(rec, pinned, d)))
}

func (n *Node) policyRequest(ctx context.Context, r *server.Run, resolved image.Resolved) policy.Request {
	s := n.subject(ctx, r)
	q := policy.Request{
		Image: s.Image, Digest: resolved.Digest, File: resolved.File, UserID: s.UserID, OrganizationID: s.OrganizationID,
		OrganizationName: s.OrganizationName, DigestOf: s.DigestOf,
		StoreID: r.StoreID, StoreAddresses: func() ([]string, error) { return n.api.StoreAddresses(ctx, r.StoreID) },
	}
	for _, d := range r.Databases {
		q.Databases = append(q.Databases, d.Label)
	}
	return q
}

// openGateway serves the run's own view of the server inside its sandbox, and
// its other connections.
func (n *Node) openGateway(ctx context.Context, rec *ledger.Record, sandbox, token string, plan *reach.Plan) error {
	base, client := n.api.Upstream()
	served, err := proxy.New(proxy.Config{
		Upstream: &proxy.Upstream{Base: base, HTTP: client},
		Run: proxy.Run{
			RunID: rec.RunID, TaskID: rec.TaskID, NodeID: n.identity.NodeID,
			OrganizationID: rec.OrganizationID, CollaborationID: rec.CollaborationID, Token: token,
		},
		Key: n.key, Keys: n.keys, Tasks: n.hub, Log: n.log, SpoolDir: n.spool,
	})
	if err != nil {
		return fmt.Errorf("make the proxy: %w", err)
	}
	carried := n.beginTraffic(rec.RunID)
	api := carried.meter(n.apiAt(), kindAPI, base.Host).Handler(served)
	doors, err := n.doors(rec, plan, carried)
	if err != nil {
		return refuse(ReasonStart, err)
	}
	return asHitch(ctx, n.engine.Gateway(ctx, rec.RunID, sandbox, n.cfg.Proxy.Port, api, doors...))
}

// asStart marks what the engine could not do, unless a more exact reason or
// the end of the run's context explains it.
func asStart(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, engine.ErrNetwork) ||
		errors.Is(err, runtime.ErrImageNotFound) || errors.Is(err, runtime.ErrWrongPlatform) {
		return err
	}
	return refuse(ReasonStart, err)
}

func (n *Node) workspaceSpec(rec *ledger.Record, r *server.Run, plan *reach.Plan, databases []config.Database) (*workspace.Spec, error) {
	kept, err := plan.Encode()
	if err != nil {
		return nil, err
	}
	limit := n.limitsOf(rec)
	s := &workspace.Spec{
		RunID: r.ID, TaskID: r.TaskID, JobID: r.JobID, NodeID: n.identity.NodeID, CollaborationID: r.CollaborationID,
		AlgorithmEnv: n.cfg.AlgorithmEnv, RunContext: n.cfg.RunContextFile,
		ProxyHost: engine.ProxyHost, ProxyAddress: engine.ProxyAddress, ProxyPort: n.cfg.Proxy.Port,
		TmpfsSize: limit.TmpfsSize, ShmSize: limit.ShmSize,
		Hosts: plan.HostsFile(), Variables: plan.Variables(), Connections: kept,
	}
	for _, d := range databases {
		s.Databases = append(s.Databases, Database(d))
	}
	for _, d := range r.Databases {
		s.Requested = append(s.Requested, workspace.Request{Label: d.Label, Parameters: d.Parameters})
	}
	return s, nil
}

// Database is a database of the configuration as a run's workspace takes it.
func Database(d config.Database) workspace.Database {
	return workspace.Database{
		Label: d.Label, Type: d.Type, URI: d.URI, Env: d.Env, CopyPlace: d.MountMode == config.MountCopy,
		Private: d.Private, Writable: d.MountMode == config.MountWritable, SizeLimit: d.SizeLimit,
	}
}

func (n *Node) engineSpec(rec *ledger.Record, ws *workspace.Run) *engine.Spec {
	limit := n.limitsOf(rec)
	s := &engine.Spec{
		RunID: rec.RunID, TaskID: rec.TaskID, JobID: rec.JobID, OrganizationID: rec.OrganizationID, Attempt: rec.Attempt,
		LogDir: ws.LogDir(), LogName: workspace.LogName, Resources: engine.Resources(limit),
		Rlimits: engine.Rlimits(limit.Ulimits), Devices: rec.Devices, BestEffort: n.bestEffort(),
	}
	for _, v := range ws.Env {
		s.Env = append(s.Env, runtime.EnvVar{Name: v.Name, Value: v.Value})
	}
	for _, m := range ws.Mounts {
		s.Mounts = append(s.Mounts, runtime.Mount{HostPath: m.Host, ContainerPath: m.Container, ReadOnly: m.ReadOnly})
	}
	return s
}
