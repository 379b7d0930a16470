//go:build integration

package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/runtime/embedded"
)

// world is a real containerd with a registry beside it.
type world struct {
	t        testing.TB
	d        *embedded.Containerd
	c        *runtime.Client
	w        *runtime.Watcher
	registry *imagekit.Registry
	image    imagekit.Ref // of testdata/probe, pulled
	binary   string
	dir      string
	node     string
	runs     int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	bundle, err := embedded.FindBundle(os.Getenv("V6NODE_BUNDLE"), "../bundle")
	if err != nil {
		t.Skip(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "v6r-")
	if err != nil {
		t.Fatal(err)
	}
	x := &world{t: t, dir: dir, node: fmt.Sprintf("test-%d-%s", os.Getpid(), filepath.Base(dir))}
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "state", "containerd.log")); err == nil && t.Failed() {
			t.Logf("containerd.log:\n%s", log)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	x.d, err = embedded.Start(t.Context(), embedded.Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Bundle: bundle, PluginBinary: self,
		CNIConfList: []byte(`{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"standin"}]}`), CNIConfName: "00-test.conflist",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := x.d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop, stopped := context.WithTimeout(context.Background(), time.Minute)
		defer stopped()
		if ended, err := x.d.Stop(stop); !ended || err != nil {
			t.Errorf("containerd: stopped %v, %v", ended, err)
			for _, err := range []error{x.d.Detach(), syscall.Kill(x.d.PID(), syscall.SIGKILL)} {
				t.Log(err)
			}
		}
		cancel()
		wg.Wait()
	})
	var log bytes.Buffer
	x.c, err = runtime.Dial(t.Context(), x.d.Endpoint(), runtime.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.c.Close() })
	t.Cleanup(x.removeAll)
	x.w = runtime.NewWatcher(x.c, map[string]string{"test": x.node}, runtime.WatchOptions{})
	wg.Go(func() { x.w.Run(ctx) })

	x.registry, err = imagekit.Serve(ctx, imagekit.RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	x.binary = filepath.Join(dir, "probe")
	if err := imagekit.GoBinary(t.Context(), "..", "./runtime/testdata/probe", x.binary, ""); err != nil {
		t.Fatal(err)
	}
	x.image = x.push("probe", nil)
	if _, err := x.c.PullImage(t.Context(), x.image.Pinned, nil, runtime.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	return x
}

// push makes an image of the probe with some more bytes in it.
func (x *world) push(name string, ballast []byte) imagekit.Ref {
	x.t.Helper()
	files := append(imagekit.Skeleton(), imagekit.File{Path: "/in/", Mode: 0o755}, imagekit.File{Path: "/out/", Mode: 0o755})
	if ballast != nil {
		files = append(files, imagekit.File{Path: "/ballast", Mode: 0o644, Data: ballast})
	}
	img, err := imagekit.Build(imagekit.Spec{Binary: x.binary, Files: files})
	if err != nil {
		x.t.Fatal(err)
	}
	ref, err := x.registry.Push(name, "1", img)
	if err != nil {
		x.t.Fatal(err)
	}
	return ref
}

func (x *world) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := x.c.ListSandboxes(ctx, map[string]string{"test": x.node})
	if err != nil {
		x.t.Error(err)
	}
	for _, s := range list {
		if err := errors.Join(x.c.StopSandbox(ctx, s.ID), x.c.RemoveSandbox(ctx, s.ID)); err != nil {
			x.t.Error(err)
		}
	}
	for i := range x.runs {
		if err := x.c.Cgroup(x.node, fmt.Sprint(i+1)).Remove(ctx); err != nil {
			x.t.Error(err)
		}
	}
}

// aRun is one run with everything it has.
type aRun struct {
	x                  *world
	g                  *runtime.Cgroup
	sandbox, container string
	spec               *runtime.SandboxSpec
	log                string
}

// run starts the probe in a sandbox of its own.
func (x *world) run(r runtime.Resources, change func(*runtime.ContainerSpec), args ...string) *aRun {
	x.t.Helper()
	x.runs++
	n := fmt.Sprint(x.runs)
	logs := filepath.Join(x.dir, "logs", n)
	labels := map[string]string{"test": x.node, "ai.vantage6.run": n}
	g := x.c.Cgroup(x.node, n)
	if err := g.Create(r); err != nil {
		x.t.Fatal(err)
	}
	a := &aRun{x: x, g: g, log: filepath.Join(logs, "0.log"), spec: &runtime.SandboxSpec{
		Name: "run-" + n, Namespace: "vantage6", UID: x.node + n, Hostname: "probe", Labels: labels, LogDirectory: logs, CgroupParent: g.Parent(), Resources: r,
	}}
	var err error
	if a.sandbox, err = x.c.RunSandbox(x.t.Context(), a.spec); err != nil {
		x.t.Fatal(err)
	}
	k := &runtime.ContainerSpec{Name: "algorithm", Image: x.image.Pinned, Args: args, LogPath: "0.log", Labels: labels, Resources: r}
	if change != nil {
		change(k)
	}
	if a.container, err = x.c.CreateContainer(x.t.Context(), a.sandbox, k, a.spec); err != nil {
		x.t.Fatal(err)
	}
	if err := x.c.StartContainer(x.t.Context(), a.container); err != nil {
		x.t.Fatal(err)
	}
	return a
}

func (a *aRun) wait() *runtime.Container {
	a.x.t.Helper()
	ctx, cancel := context.WithTimeout(a.x.t.Context(), time.Minute)
	defer cancel()
	st, err := a.x.w.Wait(ctx, a.container)
	if err != nil {
		a.x.t.Fatal(err)
	}
	return st
}

func (a *aRun) output() string {
	a.x.t.Helper()
	f, err := os.Open(a.log)
	if err != nil {
		a.x.t.Fatal(err)
	}
	defer f.Close()
	var out strings.Builder
	err = runtime.ReadLog(f, func(l runtime.LogLine) error {
		out.Write(l.Text)
		if !l.Partial {
			out.WriteByte('\n')
		}
		return nil
	})
	if err != nil {
		a.x.t.Fatal(err)
	}
	return out.String()
}

// What holds on every runtime is in integration/conformance; here is what takes
// longer, or the client's own limits.
func TestContainerd(t *testing.T) {
	x := newWorld(t)
	for name, f := range map[string]func(*testing.T, *world){
		"100000 lines arrive":                     manyLines,
		"a rotated log loses and repeats nothing": rotation,
		"a flooded log is kept small":             bounded,
		"a stalled pull ends":                     stalledPull,
	} {
		t.Run(name, func(t *testing.T) {
			before := x.t
			x.t = t
			defer func() { x.t = before }()
			f(t, x)
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func manyLines(t *testing.T, x *world) {
	const n = 100_000
	a := x.run(runtime.Resources{}, nil, "lines", fmt.Sprint(n))
	ctx, cancel := context.WithCancel(t.Context())
	count := 0
	followed := make(chan error, 1)
	go func() {
		followed <- runtime.FollowLog(ctx, a.log, runtime.LogPos{}, func(l runtime.LogLine, _ runtime.LogPos) error {
			if string(l.Text) != fmt.Sprint(count) {
				return fmt.Errorf("line %d is %q", count, l.Text)
			}
			count++
			return nil
		})
	}()
	a.wait()
	cancel()
	if err := <-followed; err != nil || count != n {
		t.Errorf("%d lines, %v", count, err)
	}
}

// rotation follows a log that is rotated as fast as the runtime can, with
// nothing taken away: every line arrives once and in order, and does so again
// when the files are read afterwards.
func rotation(t *testing.T, x *world) {
	const n = 300_000
	a := x.run(runtime.Resources{}, nil, "lines", fmt.Sprint(n))
	inOrder := func(count *int) func(l runtime.LogLine) error {
		return func(l runtime.LogLine) error {
			if string(l.Text) != fmt.Sprint(*count) || l.Partial {
				return fmt.Errorf("line %d is %q", *count, l.Text)
			}
			*count++
			return nil
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var followed, read int
	end := make(chan error, 1)
	go func() {
		next := inOrder(&followed)
		end <- runtime.FollowLog(ctx, a.log, runtime.LogPos{}, func(l runtime.LogLine, _ runtime.LogPos) error { return next(l) })
	}()
	over := make(chan struct{})
	rotations := make(chan int, 1)
	go func() {
		count := 0
		defer func() { rotations <- count }()
		for {
			select {
			case <-over:
				return
			default:
			}
			if os.Rename(a.log, fmt.Sprint(a.log, ".", count+1)) != nil {
				return
			}
			count++
			if x.c.ReopenLog(t.Context(), a.container) != nil {
				return // it has ended
			}
		}
	}()
	a.wait()
	close(over)
	if count := <-rotations; count < 2 {
		t.Errorf("the log was rotated %d times only", count)
	}
	runtime.SettleLog(t.Context(), a.log)
	cancel()
	if err := <-end; err != nil || followed != n {
		t.Errorf("%d lines followed of %d, %v", followed, n, err)
	}
	if err := runtime.ReadWholeLog(a.log, inOrder(&read)); err != nil || read != n {
		t.Errorf("%d lines read of %d, %v", read, n, err)
	}
}

// bounded floods a log that is kept small.
func bounded(t *testing.T, x *world) {
	const n, limit = 500_000, 1 << 20
	a := x.run(runtime.Resources{}, nil, "lines", fmt.Sprint(n))
	r := runtime.NewRotator(a.log, runtime.RotatorOptions{
		Reopen: func(ctx context.Context) error { return x.c.ReopenLog(ctx, a.container) },
		Head:   10_000,
	})
	ended := make(chan struct{})
	go func() { a.wait(); close(ended) }()
	for open := true; open; {
		pause, err := r.Keep(t.Context(), limit)
		if errors.Is(err, runtime.ErrLogFull) {
			t.Fatal(err)
		}
		select {
		case <-ended:
			open = false
		case <-time.After(pause):
		}
	}
	runtime.SettleLog(t.Context(), a.log)
	if _, err := r.Keep(t.Context(), limit); errors.Is(err, runtime.ErrLogFull) {
		t.Error(err)
	}
	var text, dropped, want int64
	last, gaps := "", 0
	err := runtime.ReadWholeLog(a.log, func(l runtime.LogLine) error {
		if l.Gap {
			gaps++
			dropped += l.Dropped
			return nil
		}
		text += int64(len(l.Text)) + 1
		last = string(l.Text)
		if l.Partial {
			text--
		}
		return nil
	})
	for i := range n {
		want += int64(len(fmt.Sprint(i))) + 1
	}
	if err != nil || gaps != 1 || last != fmt.Sprint(n-1) || text+dropped != want {
		t.Errorf("the last line is %q, %d gaps, %d bytes read and %d dropped of %d: %v", last, gaps, text, dropped, want, err)
	}
	t.Logf("%d bytes of text, %d of them kept", want, text)
}

// noise does not compress, so that a layer has the size asked for.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	s := uint32(seed) + 1
	for i := range b {
		s ^= s << 13
		s ^= s >> 17
		s ^= s << 5
		b[i] = byte(s)
	}
	return b
}

func stalledPull(t *testing.T, x *world) {
	ref := x.push("stall", noise(1<<20, 1))
	release := x.registry.HoldBlobs()
	defer release()
	began := time.Now()
	_, err := x.c.PullImage(t.Context(), ref.Pinned, nil, runtime.PullOptions{StallTimeout: 2 * time.Second})
	if !errors.Is(err, runtime.ErrPullStalled) {
		t.Fatalf("got %v", err)
	}
	t.Logf("after %s: %v", time.Since(began), err)
}

// BenchmarkStart measures what happens between the decision to start a run and
// its first instruction, step by step.
func BenchmarkStart(b *testing.B) {
	x := newWorld(b)
	limits := runtime.Resources{MemoryLimit: 1 << 30, PidsLimit: 100, CPUQuota: 100_000}
	var steps [6]time.Duration
	n := 0
	for b.Loop() {
		n++
		name := fmt.Sprint("b", n)
		began := time.Now()
		step := func(i int, err error) {
			b.Helper()
			if err != nil {
				b.Fatal(err)
			}
			steps[i] += time.Since(began)
			began = time.Now()
		}
		g := x.c.Cgroup(x.node, name)
		step(0, g.Create(limits))
		spec := &runtime.SandboxSpec{
			Name: name, Namespace: "vantage6", UID: name, LogDirectory: filepath.Join(x.dir, "logs", name), CgroupParent: g.Parent(),
			Labels: map[string]string{"test": x.node},
		}
		sandbox, err := x.c.RunSandbox(b.Context(), spec)
		step(1, err)
		k := &runtime.ContainerSpec{
			Name: "algorithm", Image: x.image.Pinned, Args: []string{"exit", "0"}, LogPath: "0.log", Resources: limits,
			Labels: map[string]string{"test": x.node},
		}
		container, err := x.c.CreateContainer(b.Context(), sandbox, k, spec)
		step(2, err)
		step(3, x.c.StartContainer(b.Context(), container))
		st, err := x.w.Wait(b.Context(), container)
		if err == nil {
			steps[5] += time.Since(st.FinishedAt)
		}
		step(4, err)
		b.StopTimer()
		if err := errors.Join(x.c.RemoveSandbox(b.Context(), sandbox), g.Remove(b.Context())); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	for i, name := range []string{"ms/cgroup", "ms/sandbox", "ms/create", "ms/start", "ms/wait", "ms/exit-to-wait"} {
		b.ReportMetric(float64(steps[i].Microseconds())/1000/float64(n), name)
	}
}
