package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/runtime"
)

// Options of a Run.
type Options struct {
	// Endpoint of the runtime: unix:///path.
	Endpoint string
	// Handler is the runtime handler to use, "" for the runtime's default.
	Handler string
	// Program is a static executable that calls Probe when it is started as
	// ProbeName: what runs in the containers. Default is this program.
	Program string
	// Restart ends the runtime in whatever way and starts it again; without it
	// the behaviours that need it are skipped.
	Restart func(context.Context) error
	// Only, if not nil, chooses the behaviours by their names.
	Only func(name string) bool
	Log  *slog.Logger
}

// Status of an outcome.
type Status string

// A behaviour holds, does not, or could not be tried here for a good reason.
const (
	OK   Status = "ok"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Outcome is what became of one behaviour.
type Outcome struct {
	// Group is the room of the behaviour: sandbox, container, limits, ...
	Group string `json:"group"`
	Name  string `json:"name"`
	Status
	// Detail says what was found, or why nothing was tried.
	Detail string        `json:"detail,omitempty"`
	Took   time.Duration `json:"took"`
}

// ProbeName is what Program is called in the image.
const ProbeName = "v6node-probe"

// patience bounds one behaviour. None of them waits for time to pass, so it is
// only reached by what never happens.
const patience = 2 * time.Minute

// behaviour is one statement about a runtime.
type behaviour struct {
	group, name string
	try         func(context.Context, *bench) error
}

// skipped says why a behaviour was not tried.
type skipped string

func (s skipped) Error() string { return string(s) }

func behaviours() []behaviour {
	return slices.Concat(runtimeBehaviours(), sandboxBehaviours(), confinementBehaviours(), userBehaviours(), endBehaviours(), limitBehaviours(), logBehaviours(), imageBehaviours(), sifBehaviours(), restartBehaviours())
}

// Names are the names of all behaviours, in their order.
func Names() []string {
	var out []string
	for _, b := range behaviours() {
		out = append(out, b.name)
	}
	return out
}

// Run tries the behaviours one after the other and hands over each outcome as
// soon as it is known. Everything that it makes at the runtime has a label of
// its own and is removed again, also when something fails. The error says why
// nothing could be tried, or what could not be removed.
func Run(ctx context.Context, o Options, report func(Outcome)) (err error) {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, h := range behaviours() {
		if o.Only != nil && !o.Only(h.name) {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, patience)
		err := h.try(limited, b)
		cancel()
		err = errors.Join(err, b.removeAll())
		out := Outcome{Group: h.group, Name: h.name, Status: OK, Took: time.Since(began)}
		var skip skipped
		switch {
		case errors.As(err, &skip):
			out.Status, out.Detail = Skip, string(skip)
		case err != nil:
			out.Status, out.Detail = Fail, err.Error()
		}
		report(out)
	}
	return nil
}

// bench is a runtime with what is needed to try something on it.
type bench struct {
	o        Options
	rt       *runtime.Client
	watcher  *runtime.Watcher
	registry *imagekit.Registry
	image    imagekit.Ref // of the probe, pulled
	dir      string
	name     string // of this bench among all at the runtime

	stop   context.CancelFunc
	wg     sync.WaitGroup
	count  int
	groups []*runtime.Cgroup
	pulled []string // images to be removed at the end
}

// labelBench marks what a bench makes.
const labelBench = "ai.vantage6.check"

func newBench(ctx context.Context, o Options) (_ *bench, err error) {
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &bench{o: o}
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "v6node-check-"); err != nil {
		return nil, err
	}
	b.name = "check-" + filepath.Base(b.dir)[len("v6node-check-"):]
	if b.rt, err = runtime.Dial(ctx, o.Endpoint, runtime.Options{Log: o.Log}); err != nil {
		return nil, err
	}
	b.watcher = runtime.NewWatcher(b.rt, b.labels(), runtime.WatchOptions{})
	b.wg.Go(func() { _ = b.watcher.Run(own) }) // its end is ours
	if b.registry, err = imagekit.Serve(own, imagekit.RegistryOptions{}); err != nil {
		return nil, err
	}
	if b.image, err = b.push(b.registry, b.name+"/probe", nil); err != nil {
		return nil, err
	}
	if err := b.pull(ctx, b.image.Pinned, nil); err != nil {
		return nil, fmt.Errorf("the runtime cannot get an image from a registry of this machine's loopback, from which SIF images come too: %w", err)
	}
	return b, nil
}

func (b *bench) labels() map[string]string { return map[string]string{labelBench: b.name} }

// close removes what is left and ends everything.
func (b *bench) close() error {
	var errs []error
	if b.rt != nil {
		errs = append(errs, b.removeAll())
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		for _, ref := range b.pulled {
			errs = append(errs, b.rt.RemoveImage(ctx, ref))
		}
		cancel()
	}
	b.stop()
	b.wg.Wait()
	if b.registry != nil {
		b.registry.Close()
	}
	if b.rt != nil {
		errs = append(errs, b.rt.Close())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

// removeAll removes all sandboxes, containers and control groups.
func (b *bench) removeAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := b.rt.ListSandboxes(ctx, b.labels())
	errs := []error{err}
	for _, s := range list {
		errs = append(errs, b.rt.StopSandbox(ctx, s.ID), b.rt.RemoveSandbox(ctx, s.ID))
	}
	for _, g := range b.groups {
		errs = append(errs, g.Remove(ctx))
	}
	b.groups = nil
	return errors.Join(errs...)
}

// push makes an image of the probe and serves it.
func (b *bench) push(r *imagekit.Registry, repository string, change func(*imagekit.Spec)) (imagekit.Ref, error) {
	// The directories are places for mounts: the root file system is read-only.
	s := imagekit.Spec{Binary: b.o.Program, Path: "/" + ProbeName,
		Files: append(imagekit.Skeleton(), imagekit.File{Path: "/in/", Mode: 0o755}, imagekit.File{Path: "/out/", Mode: 0o755})}
	if change != nil {
		change(&s)
	}
	img, err := imagekit.Build(s)
	if err != nil {
		return imagekit.Ref{}, err
	}
	return r.Push(strings.ToLower(repository), "1", img)
}

// ballast makes an image another one than those with other ballast.
func ballast(size int, seed byte) func(*imagekit.Spec) {
	return func(s *imagekit.Spec) {
		data := make([]byte, size)
		x := uint32(seed) + 1
		for i := range data { // does not compress
			x ^= x << 13
			x ^= x >> 17
			x ^= x << 5
			data[i] = byte(x)
		}
		s.Files = append(s.Files, imagekit.File{Path: "/ballast", Mode: 0o644, Data: data})
	}
}

// pull pulls an image and remembers to remove it.
func (b *bench) pull(ctx context.Context, ref string, auth *runtime.Auth) error {
	_, err := b.rt.PullImage(ctx, ref, auth, runtime.PullOptions{StallTimeout: time.Minute})
	if err == nil {
		b.pulled = append(b.pulled, ref)
	}
	return err
}

// run is a sandbox with one container of the probe.
type run struct {
	b           *bench
	group       *runtime.Cgroup
	spec        *runtime.SandboxSpec
	container   *runtime.ContainerSpec
	sandboxID   string
	containerID string
	log         string
	sandbox     *runtime.Sandbox
}

// order says what a run is.
type order struct {
	args      []string
	resources runtime.Resources
	users     *runtime.IDMap
	change    func(*runtime.ContainerSpec)
}

// prepare makes a control group and a sandbox in it.
func (b *bench) prepare(ctx context.Context, o order) (*run, error) {
	b.count++
	n := fmt.Sprint("t", b.count)
	g := b.rt.Cgroup(b.name, n)
	b.groups = append(b.groups, g)
	if err := g.Create(o.resources); err != nil {
		return nil, err
	}
	logs := filepath.Join(b.dir, "logs", n)
	labels := b.labels()
	a := &run{b: b, group: g, log: filepath.Join(logs, "0.log"), spec: &runtime.SandboxSpec{
		Name: b.name + "-" + n, Namespace: "vantage6", UID: b.name + "-" + n, Hostname: "probe", Labels: labels,
		LogDirectory: logs, CgroupParent: g.Parent(), RuntimeHandler: b.o.Handler, Resources: o.resources, Users: o.users,
	}}
	var err error
	if a.sandboxID, err = b.rt.RunSandbox(ctx, a.spec); err != nil {
		return nil, err
	}
	a.sandbox, err = b.rt.SandboxStatus(ctx, a.sandboxID)
	return a, err
}

// start makes a container in the sandbox and starts it.
func (a *run) start(ctx context.Context, o order) (err error) {
	a.container = &runtime.ContainerSpec{
		Name: "algorithm", Image: a.b.image.Pinned, Args: o.args, LogPath: "0.log", Labels: a.b.labels(), Resources: o.resources,
	}
	if o.change != nil {
		o.change(a.container)
	}
	if a.containerID, err = a.b.rt.CreateContainer(ctx, a.sandboxID, a.container, a.spec); err != nil {
		return err
	}
	return a.b.rt.StartContainer(ctx, a.containerID)
}

// run prepares and starts.
func (b *bench) run(ctx context.Context, o order) (*run, error) {
	a, err := b.prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	return a, a.start(ctx, o)
}

func args(list ...string) order { return order{args: list} }

// end waits until the container has ended.
func (a *run) end(ctx context.Context) (*runtime.Container, error) {
	return a.b.watcher.Wait(ctx, a.containerID)
}

// ready waits until the container has written its first line.
func (a *run) ready(ctx context.Context) error {
	seen := errors.New("seen")
	err := runtime.FollowLog(ctx, a.log, runtime.LogPos{}, func(runtime.LogLine, runtime.LogPos) error { return seen })
	if errors.Is(err, seen) {
		return nil
	}
	return fmt.Errorf("the container writes nothing: %w", errors.Join(err, ctx.Err()))
}

// output returns what the container has written to one of its streams.
func (a *run) output(stream string) (string, error) {
	f, err := os.Open(a.log)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var out strings.Builder
	err = runtime.ReadLog(f, func(l runtime.LogLine) error {
		if l.Stream == stream {
			out.Write(l.Text)
			if !l.Partial {
				out.WriteByte('\n')
			}
		}
		return nil
	})
	return out.String(), err
}

// finish runs the probe to its end, which must be a good one, and returns what
// it wrote.
func (b *bench) finish(ctx context.Context, o order) (string, *run, error) {
	a, err := b.run(ctx, o)
	if err != nil {
		return "", nil, err
	}
	st, err := a.end(ctx)
	if err != nil {
		return "", nil, err
	}
	runtime.SettleLog(ctx, a.log)
	out, err := a.output("stdout")
	if err == nil && st.ExitCode != 0 {
		errs, _ := a.output("stderr") // as far as there is one
		err = fmt.Errorf("the probe ended with %d (%s): %s%s", st.ExitCode, st.Reason, out, errs)
	}
	return out, a, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
