//go:build integration

package runtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// ready returns when the container has written its first line.
func (a *aRun) ready() {
	a.x.t.Helper()
	ctx, cancel := context.WithTimeout(a.x.t.Context(), time.Minute)
	defer cancel()
	seen := errors.New("seen")
	if err := runtime.FollowLog(ctx, a.log, runtime.LogPos{}, func(runtime.LogLine, runtime.LogPos) error { return seen }); err != seen {
		a.x.t.Fatalf("no line came: %v", err)
	}
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

func TestContainerd(t *testing.T) {
	x := newWorld(t)
	for name, f := range map[string]func(*testing.T, *world){
		"tells what it is":                            containerdInfo,
		"an ended container reports its exit code":    exitCode,
		"a container is confined from inside":         confined,
		"a container that ignores SIGTERM is killed":  stubborn,
		"a container may end itself at SIGTERM":       graceful,
		"too much memory is counted and killed":       oom,
		"100000 lines arrive":                         manyLines,
		"binary output without a newline arrives":     binary,
		"crictl sees names and labels":                crictl,
		"a rotated log loses and repeats nothing":     rotation,
		"a flooded log is kept small":                 bounded,
		"pull errors have their kinds":                pullErrors,
		"a stalled pull ends":                         stalledPull,
		"a cancelled pull ends and another one works": cancelledPull,
		"the same sandbox name needs another attempt": attempts,
		"removal is idempotent and leaves no cgroup":  removal,
		"waiting survives kill -9 of the runtime":     restart,
	} {
		t.Run(name, func(t *testing.T) {
			before := x.t
			x.t = t
			defer func() { x.t = before }()
			f(t, x)
		})
	}
}

func containerdInfo(t *testing.T, x *world) {
	i := x.c.Info()
	if i.Name != "containerd" || i.APIVersion != "v1" || i.CgroupDriver != runtime.Cgroupfs || len(i.Handlers) == 0 || i.CNIConfDir == "" || len(i.CNIBinDirs) == 0 {
		t.Errorf("got %+v", i)
	}
	if !strings.HasPrefix(i.CNIConfDir, x.dir) {
		t.Errorf("the network directory is %s, not that of this containerd", i.CNIConfDir)
	}
	t.Logf("%+v", i)
}

func exitCode(t *testing.T, x *world) {
	for _, code := range []int{0, 7} {
		st := x.run(runtime.Resources{}, nil, "exit", fmt.Sprint(code)).wait()
		if st.State != runtime.StateExited || st.ExitCode != code || st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt) {
			t.Errorf("got %+v", st)
		}
	}
}

func confined(t *testing.T, x *world) {
	in, out := filepath.Join(x.dir, "in"), filepath.Join(x.dir, "out")
	for _, d := range []string{in, out, filepath.Join(in, "sub")} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	// A mount below a read-only one must be read-only too.
	sub := filepath.Join(in, "sub")
	if err := syscall.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(sub, syscall.MNT_DETACH)
	a := x.run(runtime.Resources{MemoryLimit: 256 << 20, PidsLimit: 64, CPUQuota: 100_000}, func(k *runtime.ContainerSpec) {
		k.Mounts = []runtime.Mount{{HostPath: in, ContainerPath: "/in", ReadOnly: true}, {HostPath: out, ContainerPath: "/out"}}
		k.Env = []runtime.EnvVar{{Name: "A", Value: "1=2"}}
	}, "report")
	if st := a.wait(); st.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", st.ExitCode, a.output())
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(a.output()), &got); err != nil {
		t.Fatal(err)
	}
	const none = "0000000000000000"
	for k, want := range map[string]string{
		"CapEff": none, "CapPrm": none, "CapBnd": none, "CapInh": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2",
		"unmasked": "", "hostname": "probe", "processes": "1", "env A": "1=2", "tty": "no", "write out": "ok",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	for _, k := range []string{"write root", "write sysctl", "write in", "write submount"} {
		if !strings.Contains(got[k], "read-only file system") {
			t.Errorf("%s: %q", k, got[k])
		}
	}
	for _, k := range []string{"mount", "chown", "unshare"} {
		if !strings.Contains(got[k], "operation not permitted") {
			t.Errorf("%s: %q", k, got[k])
		}
	}
	if strings.Contains(got["resolv.conf"], "nameserver") {
		t.Errorf("the host's resolv.conf is in the container: %q", got["resolv.conf"])
	}
	if r, err := a.g.ReadBack(); err != nil || r.MemoryLimit != 256<<20 || r.PidsLimit != 64 {
		t.Errorf("limits after the start: %+v, %v", r, err)
	}
	s, err := x.c.SandboxStatus(t.Context(), a.sandbox)
	if err != nil || s.PID == 0 || !exists(s.NetNS) || !s.Ready {
		t.Errorf("sandbox %+v, %v", s, err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func stubborn(t *testing.T, x *world) {
	a := x.run(runtime.Resources{}, nil, "stubborn")
	a.ready()
	began := time.Now()
	if err := x.c.StopContainer(t.Context(), a.container, time.Second); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d < time.Second || d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
	if st := a.wait(); st.ExitCode != 137 {
		t.Errorf("got %+v", st)
	}
	if err := x.c.StopContainer(t.Context(), a.container, time.Second); err != nil {
		t.Errorf("again: %v", err)
	}
}

func graceful(t *testing.T, x *world) {
	a := x.run(runtime.Resources{}, nil, "wait")
	a.ready()
	if err := x.c.StopContainer(t.Context(), a.container, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if st := a.wait(); st.ExitCode != 3 {
		t.Errorf("got %+v", st)
	}
}

func oom(t *testing.T, x *world) {
	a := x.run(runtime.Resources{MemoryLimit: 64 << 20}, nil, "oom")
	st := a.wait()
	if st.ExitCode != 137 {
		t.Errorf("got %+v", st)
	}
	n, err := a.g.OOMKills()
	if err != nil || n < 1 {
		t.Errorf("%d OOM kills, %v", n, err)
	}
	peak, err := a.g.PeakMemory()
	if err != nil || peak < 60<<20 {
		t.Errorf("peak %d, %v", peak, err)
	}
	t.Logf("OOM kills %d, peak %d, reason %s", n, peak, st.Reason)
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

func binary(t *testing.T, x *world) {
	a := x.run(runtime.Resources{}, nil, "binary")
	a.wait()
	var want []byte
	for i := range 256 {
		if i != '\n' && i != '\r' {
			want = append(want, byte(i))
		}
	}
	if out := a.output(); out != strings.Repeat(string(want), 1000) {
		t.Errorf("%d bytes arrived of %d", len(out), 1000*len(want))
	}
}

func crictl(t *testing.T, x *world) {
	a := x.run(runtime.Resources{}, nil, "wait")
	a.ready()
	out, err := exec.CommandContext(t.Context(), "../bundle/crictl", "-r", x.d.Endpoint(), "ps", "--id", a.container).CombinedOutput()
	if err != nil {
		t.Skipf("no crictl: %v: %s", err, out)
	}
	for _, want := range []string{"algorithm", a.spec.Name, "vantage6"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("crictl does not show %q:\n%s", want, out)
		}
	}
	if err := x.c.StopContainer(t.Context(), a.container, 0); err != nil {
		t.Fatal(err)
	}
	st, err := x.c.ContainerStatus(t.Context(), a.container)
	if err != nil || st.SandboxID != a.sandbox || st.Name != "algorithm" {
		t.Errorf("got %+v, %v", st, err)
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

func pullErrors(t *testing.T, x *world) {
	ctx := t.Context()
	pull := func(ref string) error {
		_, err := x.c.PullImage(ctx, ref, nil, runtime.PullOptions{StallTimeout: time.Minute})
		return err
	}
	private, err := imagekit.Serve(ctx, imagekit.RegistryOptions{Username: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	img, err := imagekit.Build(imagekit.Spec{Binary: x.binary})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := private.Push("secret", "1", img)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := imagekit.Build(imagekit.Spec{Binary: x.binary, OS: "linux", Architecture: "s390x"})
	if err != nil {
		t.Fatal(err)
	}
	index, err := imagekit.Index(foreign)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x.registry.PushIndex("other", "1", index)
	if err != nil {
		t.Fatal(err)
	}
	gone := "sha256:" + strings.Repeat("0", 64)
	for _, tc := range []struct {
		ref  string
		kind error
	}{
		{x.registry.Host() + "/denied/unauthorized@" + gone, runtime.ErrImageNotFound},
		{x.registry.Host() + "/probe:none", runtime.ErrImageNotFound},
		{secret.Pinned, runtime.ErrRegistryDenied},
		{"127.0.0.1:1/x@" + gone, runtime.ErrRegistryUnreachable},
		{"no-such-host.invalid/x@" + gone, runtime.ErrRegistryUnreachable},
		{other.Pinned, runtime.ErrWrongPlatform},
		{"127.0.0.1:1/UPPER@" + gone, runtime.ErrInvalid},
	} {
		err := pull(tc.ref)
		if !errors.Is(err, tc.kind) {
			t.Errorf("%s: got %v, want the kind %q", tc.ref, err, tc.kind)
		}
		t.Log(err)
	}
	if _, err := x.c.PullImage(ctx, secret.Pinned, &runtime.Auth{Username: "u", Password: "p"}, runtime.PullOptions{}); err != nil {
		t.Errorf("with credentials: %v", err)
	}
	x.registry.Refuse(503)
	defer x.registry.Refuse(0)
	if err := pull(x.registry.Host() + "/probe@" + gone); !errors.Is(err, runtime.ErrRegistryUnreachable) {
		t.Errorf("503: got %v", err)
	}
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

func cancelledPull(t *testing.T, x *world) {
	ref := x.push("cancel", noise(4<<20, 2))
	release := x.registry.HoldBlobs()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := x.c.PullImage(ctx, ref.Pinned, nil, runtime.PullOptions{})
		first <- err
	}()
	if err := x.registry.WaitHeld(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := x.c.PullImage(t.Context(), ref.Pinned, nil, runtime.PullOptions{})
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	release()
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
	img, err := x.c.Image(t.Context(), ref.Pinned)
	if err != nil || !slices.Contains(img.RepoDigests, ref.Pinned) || img.Size < 4<<20 {
		t.Errorf("got %+v, %v", img, err)
	}
	if err := x.c.RemoveImage(t.Context(), ref.Pinned); err != nil {
		t.Error(err)
	}
	if _, err := x.c.Image(t.Context(), ref.Pinned); !errors.Is(err, runtime.ErrImageNotFound) {
		t.Errorf("after removal: %v", err)
	}
}

func attempts(t *testing.T, x *world) {
	a := x.run(runtime.Resources{}, nil, "wait")
	if _, err := x.c.RunSandbox(t.Context(), a.spec); err == nil {
		t.Error("the same sandbox was started twice")
	}
	a.spec.Attempt++
	id, err := x.c.RunSandbox(t.Context(), a.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.c.RemoveSandbox(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func removal(t *testing.T, x *world) {
	a := x.run(runtime.Resources{PidsLimit: 50}, nil, "wait")
	a.ready()
	for range 2 {
		for _, err := range []error{
			x.c.StopContainer(t.Context(), a.container, 0), x.c.RemoveContainer(t.Context(), a.container),
			x.c.StopSandbox(t.Context(), a.sandbox), x.c.RemoveSandbox(t.Context(), a.sandbox), a.g.Remove(t.Context()),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := x.w.Wait(t.Context(), a.container); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Wait: %v", err)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*" + a.g.Parent())
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func restart(t *testing.T, x *world) {
	a := x.run(runtime.Resources{}, nil, "wait")
	a.ready()
	out := make(chan error, 1)
	go func() {
		st, err := x.w.Wait(t.Context(), a.container)
		if err == nil && st.ExitCode != 3 {
			err = fmt.Errorf("got %+v", st)
		}
		out <- err
	}()
	old := x.d.PID()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// This call waits for the new one.
	if err := x.c.StopContainer(t.Context(), a.container, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := <-out; err != nil {
		t.Error(err)
	}
	if x.d.PID() == old {
		t.Error("containerd was not restarted")
	}
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
