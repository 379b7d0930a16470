package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/node/health"
	"github.com/v6node/v6node/proxy"
	"github.com/v6node/v6node/runtime"
)

// Labels of everything that this engine makes, for re-adoption and for crictl.
const (
	LabelNode    = "ai.vantage6.node"
	LabelRun     = "ai.vantage6.run"
	LabelTask    = "ai.vantage6.task"
	LabelJob     = "ai.vantage6.job"
	LabelOrg     = "ai.vantage6.organization"
	LabelAttempt = "ai.vantage6.attempt"
)

// Annotations of a container: which image it runs, by the node's name, and the
// digest of the file where the name has that of an artifact.
const (
	AnnotationImage = "ai.vantage6.image"
	AnnotationFile  = "ai.vantage6.image.file"
)

// Namespace is the pod namespace that crictl shows.
const Namespace = "vantage6"

// containerName is the one container of a sandbox.
const containerName = "algorithm"

// CRI runs algorithms in sandboxes of a CRI runtime.
type CRI struct {
	rt       *runtime.Client
	watcher  *runtime.Watcher
	instance string
	handler  string
	users    *Users
	log      *slog.Logger

	// Gateways outlive the calls that open them: they end at Remove, or all
	// together when Run returns.
	mu       sync.Mutex
	closed   bool
	gateways map[int64]*gateway
	// groups holds the cgroup of each run from its creation to its removal,
	// because on cgroup v1 the object itself counts the kernel's OOM kills.
	groups map[int64]*runtime.Cgroup
}

type gateway struct {
	cancel context.CancelFunc
	done   chan struct{}
	// broken ends with the gateway; its cause tells of one that failed.
	broken context.Context
	fail   context.CancelCauseFunc
}

// NewCRI makes an engine on a connected runtime. instance names this node
// among all nodes that share the runtime; it is a short DNS label. The loop, which
// may be nil, is Run's; without users every algorithm is in the machine's user
// namespace.
func NewCRI(rt *runtime.Client, instance, handler string, users *Users, loop *health.Loop, log *slog.Logger) *CRI {
	busy := func(b bool) {
		if b {
			loop.Beat()
		} else {
			loop.Rest()
		}
	}
	return &CRI{
		rt: rt, instance: instance, handler: handler, users: users, log: log,
		watcher:  runtime.NewWatcher(rt, map[string]string{LabelNode: instance}, runtime.WatchOptions{Busy: busy}),
		gateways: make(map[int64]*gateway),
		groups:   make(map[int64]*runtime.Cgroup),
	}
}

// Run watches the runtime until ctx ends, then closes every gateway and
// returns when the last request is answered or cut.
func (e *CRI) Run(ctx context.Context) error {
	err := e.watcher.Run(ctx)
	e.mu.Lock()
	e.closed = true
	open := slices.Collect(maps.Values(e.gateways))
	e.mu.Unlock()
	for _, g := range open {
		g.cancel()
	}
	for _, g := range open {
		<-g.done
	}
	return err
}

func (e *CRI) labels(s *Spec) map[string]string {
	return map[string]string{
		LabelNode:    e.instance,
		LabelRun:     strconv.FormatInt(s.RunID, 10),
		LabelTask:    strconv.FormatInt(s.TaskID, 10),
		LabelJob:     strconv.FormatInt(s.JobID, 10),
		LabelOrg:     strconv.FormatInt(s.OrganizationID, 10),
		LabelAttempt: strconv.FormatUint(uint64(s.Attempt), 10),
	}
}

func imageAnnotations(s *Spec) map[string]string {
	out := make(map[string]string)
	if s.ImageName != "" {
		out[AnnotationImage] = s.ImageName
	}
	if s.ImageFile != "" {
		out[AnnotationFile] = s.ImageFile
	}
	return out
}

// cgroup returns the run's one cgroup object.
func (e *CRI) cgroup(runID int64) *runtime.Cgroup {
	e.mu.Lock()
	defer e.mu.Unlock()
	if g := e.groups[runID]; g != nil {
		return g
	}
	g := e.newCgroup(runID)
	e.groups[runID] = g
	return g
}

// cgroupOf returns the run's cgroup object, and makes none that would stay for a
// run that does not live.
func (e *CRI) cgroupOf(runID int64) *runtime.Cgroup {
	e.mu.Lock()
	g := e.groups[runID]
	e.mu.Unlock()
	if g == nil {
		g = e.newCgroup(runID)
	}
	return g
}

func (e *CRI) newCgroup(runID int64) *runtime.Cgroup {
	return e.rt.Cgroup(e.instance, "run"+strconv.FormatInt(runID, 10))
}

func (e *CRI) sandboxSpec(s *Spec) *runtime.SandboxSpec {
	run := strconv.FormatInt(s.RunID, 10)
	spec := &runtime.SandboxSpec{
		Name:           "run-" + run,
		Namespace:      Namespace,
		UID:            e.instance + "-" + run,
		Attempt:        s.Attempt,
		Hostname:       "run-" + run,
		Labels:         e.labels(s),
		LogDirectory:   s.LogDir,
		CgroupParent:   e.cgroup(s.RunID).Parent(),
		RuntimeHandler: e.handlerFor(s),
		Resources:      s.Resources,
		Users:          e.users.of(s.RunID),
	}
	if spec.Users != nil {
		spec.Annotations = map[string]string{AnnotationUsers: spec.Users.String()}
	}
	return spec
}

// Open implements Engine.
func (e *CRI) Open(ctx context.Context, s *Spec) (_ string, err error) {
	cg := e.cgroup(s.RunID)
	// What was begun is undone even when the caller has given up, and a sandbox
	// under way is not given up half-way: what the runtime is about to make
	// then could not be found and removed.
	undo := context.WithoutCancel(ctx)
	if err := e.limit(ctx, cg, s); err != nil {
		return "", errors.Join(fmt.Errorf("make the cgroup of run %d: %w", s.RunID, err), cg.Remove(undo))
	}
	if ctx.Err() != nil {
		return "", errors.Join(ctx.Err(), cg.Remove(undo))
	}
	if err := e.users.take(e.rt.Info(), e.handlerFor(s), s); err != nil {
		return "", errors.Join(fmt.Errorf("make the user namespace of run %d: %w", s.RunID, err), cg.Remove(undo))
	}
	id, err := e.runSandbox(undo, s)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("start the sandbox of run %d: %w", s.RunID, err), e.Remove(undo, s.RunID))
	}
	ns, sb, err := e.netns(ctx, id)
	if err == nil {
		err = errors.Join(e.asked(s, sb), asNetwork(e.advise(ns.Verify())), ns.Close())
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("check the sandbox of run %d: %w", s.RunID, err), e.Remove(undo, s.RunID))
	}
	return id, nil
}

// asked refuses a sandbox that is not the one that was asked for: CRI-O answers with
// an older one of the same name, whoever made it and however.
func (e *CRI) asked(s *Spec, sb *runtime.Sandbox) error {
	for name, value := range e.labels(s) {
		if sb.Labels[name] != value {
			return fmt.Errorf("the runtime gave a sandbox of the same name that somebody else made (%s); remove it with `crictl rmp -f %[1]s`", sb.ID)
		}
	}
	return nil
}

// asNetwork marks a refused network, whatever is wrong with it.
func asNetwork(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNetwork, err)
}

// advise names this runtime's own directories in the command that cures a
// foreign network.
func (e *CRI) advise(err error) error {
	var foreign *cni.ForeignNetworkError
	if info := e.rt.Info(); errors.As(err, &foreign) {
		foreign.Layout = cni.Layout{ConfDir: info.CNIConfDir}
		if len(info.CNIBinDirs) > 0 {
			foreign.Layout.BinDir = info.CNIBinDirs[0]
		}
	}
	return err
}

func (e *CRI) netns(ctx context.Context, sandboxID string) (*cni.Netns, *runtime.Sandbox, error) {
	sb, err := e.rt.SandboxStatus(ctx, sandboxID)
	if err != nil {
		return nil, nil, fmt.Errorf("ask for the sandbox's network namespace: %w", err)
	}
	if sb.NetNS == "" {
		return nil, nil, fmt.Errorf("%w: the runtime names no network namespace for the sandbox", ErrNetwork)
	}
	ns, err := cni.OpenNetns(sb.NetNS)
	if err != nil {
		return nil, nil, asNetwork(err)
	}
	return ns, sb, nil
}

// Gateway implements Engine.
func (e *CRI) Gateway(ctx context.Context, runID int64, sandboxID string, port int, h http.Handler, doors ...Door) error {
	api := Door{
		Address: netip.AddrPortFrom(netip.MustParseAddr(ProxyAddress), uint16(port)),
		Serve:   func(ctx context.Context, l net.Listener) error { return proxy.Serve(ctx, l, h) },
	}
	doors = append([]Door{api}, doors...)
	listeners, err := e.listen(ctx, runID, sandboxID, doors)
	if err == nil {
		err = e.serve(ctx, runID, doors, listeners)
	}
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return fmt.Errorf("open the gateway of run %d: %w", runID, err)
	}
	return nil
}

// listen opens the listeners of the doors. On an error it returns those that are
// open.
func (e *CRI) listen(ctx context.Context, runID int64, sandboxID string, doors []Door) (open []net.Listener, err error) {
	ns, sb, err := e.netns(ctx, sandboxID)
	if err != nil {
		return nil, err
	}
	e.users.found(runID, sb)
	defer func() { err = errors.Join(err, ns.Close()) }()
	for _, d := range doors {
		l, err := ns.ListenAs(d.Address)
		if err != nil {
			return open, err
		}
		open = append(open, l)
	}
	return open, nil
}

// serve serves the doors of a run until its gateway is closed, or one fails:
// an algorithm without one of its connections could wait for it for ever.
func (e *CRI) serve(ctx context.Context, runID int64, doors []Door, listeners []net.Listener) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errors.New("the engine has ended")
	}
	if _, ok := e.gateways[runID]; ok {
		return errors.New("it is open already")
	}
	serve, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g := &gateway{cancel: cancel, done: make(chan struct{})}
	g.broken, g.fail = context.WithCancelCause(context.Background())
	e.gateways[runID] = g
	var all sync.WaitGroup
	for i, d := range doors {
		all.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					g.fail(fmt.Errorf("the gateway of run %d failed (%v): report this as a defect", runID, v))
				}
			}()
			if err := d.Serve(serve, listeners[i]); err != nil && serve.Err() == nil {
				g.fail(fmt.Errorf("the gateway of run %d failed: %w", runID, err))
			}
		})
	}
	go func() {
		all.Wait()
		g.fail(nil)
		close(g.done)
	}()
	return nil
}

// whileServed returns a context that ends, with the reason as its cause, when
// the run's gateway fails.
func (e *CRI) whileServed(ctx context.Context, runID int64) (context.Context, context.CancelFunc) {
	e.mu.Lock()
	g := e.gateways[runID]
	e.mu.Unlock()
	served, end := context.WithCancelCause(ctx)
	if g == nil {
		return served, func() { end(nil) }
	}
	stop := context.AfterFunc(g.broken, func() {
		if why := context.Cause(g.broken); !errors.Is(why, context.Canceled) { // else it was closed
			end(why)
		}
	})
	return served, func() { stop(); end(nil) }
}

func (e *CRI) closeGateway(runID int64) {
	e.mu.Lock()
	g := e.gateways[runID]
	delete(e.gateways, runID)
	e.mu.Unlock()
	if g != nil {
		g.cancel()
		<-g.done
	}
}

// Create implements Engine.
func (e *CRI) Create(ctx context.Context, s *Spec, sandboxID string) (string, error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	// As with the sandbox: not given up half-way.
	// Where there is one user only, that is who runs the algorithm, whatever the
	// image says. It is who runs the node, and has nothing that the node has not.
	var user *int64
	if userns.OneID() {
		user = new(int64)
	}
	id, err := e.rt.CreateContainer(context.WithoutCancel(ctx), sandboxID, &runtime.ContainerSpec{
		Name:        containerName,
		Attempt:     s.Attempt,
		Image:       s.Image,
		Env:         s.Env,
		Mounts:      s.Mounts,
		LogPath:     s.LogName,
		Labels:      e.labels(s),
		Resources:   s.Resources,
		Devices:     s.Devices,
		Annotations: imageAnnotations(s),
		RunAsUser:   user,
	}, e.sandboxSpec(s))
	if err != nil {
		return "", fmt.Errorf("create the container of run %d: %w", s.RunID, err)
	}
	return id, nil
}

// Start implements Engine.
func (e *CRI) Start(ctx context.Context, containerID string) error {
	if err := e.rt.StartContainer(ctx, containerID); err != nil {
		if notExecutable(err) {
			return &programError{err}
		}
		return err // says what was started
	}
	return nil
}

// programError is ErrProgram with the runtime's words.
type programError struct{ err error }

func (e *programError) Error() string {
	return e.err.Error() + ": correct the image's entrypoint, which must name a program that the image has for this machine"
}

func (e *programError) Unwrap() []error { return []error{ErrProgram, e.err} }

// countOOM begins to count the kernel's OOM kills of a run that was found
// after a restart; for others Open has begun. A count that cannot be had
// leaves the runtime's word.
func (e *CRI) countOOM(runID int64) {
	if err := e.cgroup(runID).WatchOOM(); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		e.log.Warn("the memory kills of a run found after a restart cannot be counted", "run", runID, "error", err)
	}
}

// notExecutable tells whether a start failed because of the program that the
// image names. The runtimes say so only in words, runc's and crun's.
func notExecutable(err error) bool {
	return slices.ContainsFunc([]string{"exec: ", "executable file", "exec format error"}, func(words string) bool {
		return strings.Contains(err.Error(), words)
	})
}

// Wait implements Engine.
func (e *CRI) Wait(ctx context.Context, runID int64, containerID string) (*Exit, error) {
	e.countOOM(runID)
	served, end := e.whileServed(ctx, runID)
	defer end()
	c, err := e.watcher.Wait(served, containerID)
	if err != nil && ctx.Err() == nil && served.Err() != nil {
		return nil, context.Cause(served)
	}
	if errors.Is(err, runtime.ErrNotFound) {
		return nil, fmt.Errorf("run %d: %w", runID, ErrVanished)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for run %d: %w", runID, err)
	}
	out := &Exit{Code: c.ExitCode, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt, OOMKilled: c.Reason == "OOMKilled",
		// containerd says Unknown of one that it finds ended after its own death.
		Lost: c.State == runtime.StateUnknown || c.Reason == runtime.ReasonUnknown}
	cg := e.cgroup(runID)
	// The kernel's own count tells of killed children too; where it cannot be
	// read the runtime's word stands.
	if kills, err := cg.OOMKills(); err == nil {
		out.OOMKilled = out.OOMKilled || kills > 0
	}
	if peak, err := cg.PeakMemory(); err == nil {
		out.PeakMemory = peak
	}
	return out, nil
}

// ReopenLog implements Engine.
func (e *CRI) ReopenLog(ctx context.Context, containerID string) error {
	return e.rt.ReopenLog(ctx, containerID)
}

// Stop implements Engine.
func (e *CRI) Stop(ctx context.Context, containerID string, grace time.Duration) error {
	if err := e.rt.StopContainer(ctx, containerID, grace); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("stop container %s: %w", containerID, err)
	}
	return nil
}

// Remove implements Engine.
func (e *CRI) Remove(ctx context.Context, runID int64) error {
	e.closeGateway(runID)
	mine := map[string]string{LabelNode: e.instance, LabelRun: strconv.FormatInt(runID, 10)}
	found, err := e.rt.ListSandboxes(ctx, mine)
	if err != nil {
		return fmt.Errorf("list the sandboxes of run %d: %w", runID, err)
	}
	var g errgroup.Group
	for _, sb := range found {
		g.Go(func() error {
			// Removing a sandbox removes its containers.
			if err := e.rt.StopSandbox(ctx, sb.ID); err != nil {
				return fmt.Errorf("stop sandbox %s: %w", sb.ID, err)
			}
			if err := e.rt.RemoveSandbox(ctx, sb.ID); err != nil {
				return fmt.Errorf("remove sandbox %s: %w", sb.ID, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("clean up after run %d: %w", runID, err)
	}
	if err := e.cgroup(runID).Remove(ctx); err != nil {
		return fmt.Errorf("remove the cgroup of run %d: %w", runID, err)
	}
	e.users.release(runID)
	e.mu.Lock()
	delete(e.groups, runID)
	e.mu.Unlock()
	return nil
}

// neverStarted tells whether a container that has ended was never started:
// containerd counts one as ended whose process it could not even create. It says
// so only in words.
func (e *CRI) neverStarted(ctx context.Context, c *runtime.Container) bool {
	if c.State != runtime.StateExited {
		return false
	}
	st, err := e.rt.ContainerStatus(ctx, c.ID)
	return err == nil && st.StartedAt.IsZero() && strings.Contains(st.Message, "failed to create containerd task")
}

// List implements Engine.
func (e *CRI) List(ctx context.Context) ([]Living, error) {
	mine := map[string]string{LabelNode: e.instance}
	sandboxes, err := e.rt.ListSandboxes(ctx, mine)
	if err != nil {
		return nil, fmt.Errorf("list this node's sandboxes: %w", err)
	}
	containers, err := e.rt.ListContainers(ctx, mine)
	if err != nil {
		return nil, fmt.Errorf("list this node's containers: %w", err)
	}
	in := make(map[string]*runtime.Container, len(containers))
	for _, c := range containers {
		in[c.SandboxID] = c
	}
	var out []Living
	for _, sb := range sandboxes {
		run, err := strconv.ParseInt(sb.Labels[LabelRun], 10, 64)
		if err != nil {
			continue // labelled by somebody else's hand
		}
		l := Living{RunID: run, Attempt: sb.Attempt, SandboxID: sb.ID, Ready: sb.Ready}
		if c := in[sb.ID]; c != nil {
			l.ContainerID = c.ID
			l.Started = c.State != runtime.StateCreated && !e.neverStarted(ctx, c)
			l.Exited = c.State == runtime.StateExited
		}
		out = append(out, l)
	}
	return out, nil
}
