//go:build integration

package sif_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/runtime/embedded"
	"github.com/v6node/v6node/sif"
	"github.com/v6node/v6node/sif/internal/imagetest"
	"github.com/v6node/v6node/sif/internal/siftest"
)

// TestMain lets the test program stand in for the CNI plugin.
func TestMain(m *testing.M) {
	switch os.Getenv("CNI_COMMAND") {
	case "":
		os.Exit(m.Run())
	case "ADD":
		fmt.Printf(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":%q}],"ips":[{"address":"192.0.2.2/32","interface":0}]}`,
			os.Getenv("CNI_NETNS"))
	case "VERSION":
		fmt.Print(`{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}`)
	}
}

// world is a real containerd with a store beside it.
type world struct {
	testing.TB
	c    *runtime.Client
	w    *runtime.Watcher
	s    *sif.Store
	sifs string
	dir  string
	node string
	runs int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	bundle, err := embedded.FindBundle(os.Getenv("V6NODE_BUNDLE"), "../bundle")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "v6s-")
	if err != nil {
		t.Fatal(err)
	}
	x := &world{TB: t, dir: dir, node: fmt.Sprintf("sif-%d", os.Getpid()), sifs: filepath.Join(dir, "images")}
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "state", "containerd.log")); err == nil && t.Failed() {
			t.Logf("containerd.log:\n%s", log)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d, err := embedded.Start(t.Context(), embedded.Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Bundle: bundle, PluginBinary: self,
		CNIConfList: []byte(`{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"standin"}]}`), CNIConfName: "00-test.conflist",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop, stopped := context.WithTimeout(context.Background(), time.Minute)
		defer stopped()
		if ended, err := d.Stop(stop); !ended || err != nil {
			t.Errorf("containerd: stopped %v, %v", ended, err)
			for _, err := range []error{d.Detach(), syscall.Kill(d.PID(), syscall.SIGKILL)} {
				t.Log(err)
			}
		}
		cancel()
		wg.Wait()
	})
	if x.c, err = runtime.Dial(t.Context(), d.Endpoint(), runtime.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.c.Close() })
	t.Cleanup(x.removeAll)
	x.w = runtime.NewWatcher(x.c, map[string]string{"test": x.node}, runtime.WatchOptions{})
	wg.Go(func() { x.w.Run(ctx) })
	if err := os.Mkdir(x.sifs, 0o755); err != nil {
		t.Fatal(err)
	}
	if x.s, err = sif.Open(ctx, sif.Options{Directories: []string{x.sifs}, CacheDir: filepath.Join(dir, "cache"), Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.s.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func (x *world) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := x.c.ListSandboxes(ctx, map[string]string{"test": x.node})
	if err != nil {
		x.Error(err)
	}
	for _, s := range list {
		if err := errors.Join(x.c.StopSandbox(ctx, s.ID), x.c.RemoveSandbox(ctx, s.ID)); err != nil {
			x.Error(err)
		}
	}
	for i := range x.runs {
		if err := x.c.Cgroup(x.node, fmt.Sprint(i+1)).Remove(ctx); err != nil {
			x.Error(err)
		}
	}
}

// place puts a file where sif: references find it.
func (x *world) place(name, path string) {
	x.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(x.sifs, name), b, 0o644)
	}
	if err != nil {
		x.Fatal(err)
	}
}

// pull makes an image of a reference in the runtime, and gives its pull and what the
// runtime calls it.
func (x *world) pull(ref string) (*sif.Pull, *runtime.Image) {
	x.Helper()
	r, err := x.s.Resolve(x.Context(), ref, nil)
	if err != nil {
		x.Fatal(err)
	}
	p, err := x.s.Ensure(x.Context(), r, nil)
	if err != nil {
		x.Fatal(err)
	}
	img, err := x.c.PullImage(x.Context(), p.Reference, &runtime.Auth{Username: p.Username, Password: p.Password}, runtime.PullOptions{})
	if err != nil {
		x.Fatal(err)
	}
	return p, img
}

// started is a container and where its log is.
type started struct {
	id, log string
	status  *runtime.Container // nil until waited for
}

// start starts a container of an image. Its root is read-only, as every algorithm's.
func (x *world) start(image string, change func(*runtime.ContainerSpec)) *started {
	x.Helper()
	x.runs++
	n := fmt.Sprint(x.runs)
	logs := filepath.Join(x.dir, "logs", n)
	labels := map[string]string{"test": x.node}
	g := x.c.Cgroup(x.node, n)
	if err := g.Create(runtime.Resources{}); err != nil {
		x.Fatal(err)
	}
	sb := &runtime.SandboxSpec{Name: "run-" + n, Namespace: "vantage6", UID: x.node + n, Hostname: "sif", Labels: labels, LogDirectory: logs, CgroupParent: g.Parent()}
	sandbox, err := x.c.RunSandbox(x.Context(), sb)
	if err != nil {
		x.Fatal(err)
	}
	k := &runtime.ContainerSpec{Name: "algorithm", Image: image, LogPath: "0.log", Labels: labels}
	if change != nil {
		change(k)
	}
	id, err := x.c.CreateContainer(x.Context(), sandbox, k, sb)
	if err != nil {
		x.Fatal(err)
	}
	if err := x.c.StartContainer(x.Context(), id); err != nil {
		x.Fatal(err)
	}
	return &started{id: id, log: filepath.Join(logs, "0.log")}
}

// output waits for a container's end and gives exit code and output.
func (x *world) output(s *started) (int, string) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), time.Minute)
	defer cancel()
	var err error
	if s.status, err = x.w.Wait(ctx, s.id); err != nil {
		x.Fatal(err)
	}
	f, err := os.Open(s.log)
	if err != nil {
		x.Fatal(err)
	}
	defer f.Close()
	var out strings.Builder
	if err := runtime.ReadLog(f, func(l runtime.LogLine) error {
		out.Write(l.Text)
		if !l.Partial {
			out.WriteByte('\n')
		}
		return nil
	}); err != nil {
		x.Fatal(err)
	}
	return s.status.ExitCode, out.String()
}

// sameMachine gives a root file system with this machine's shell and a few programs.
func sameMachine(t testing.TB, tree siftest.Tree) siftest.Tree {
	t.Helper()
	for _, program := range []string{"sh", "cat", "sleep", "env", "id"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		add(t, tree, "bin/"+program, path)
		out, err := exec.Command("ldd", path).CombinedOutput()
		if err != nil {
			t.Fatalf("ldd %s: %s", path, out)
		}
		for field := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(field, "/") {
				add(t, tree, strings.TrimPrefix(field, "/"), field)
			}
		}
	}
	return tree
}

func add(t testing.TB, tree siftest.Tree, name, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tree[name] = string(b)
}

func TestASIFImageRunsInARealContainer(t *testing.T) {
	x := newWorld(t)
	tree := sameMachine(t, siftest.Apptainer(
		"export GREETING='hello from the environment' INPUT_FILE=/image\nexport PATH=/opt/bin:$PATH\n",
		"echo \"args: $*\"\necho \"$GREETING $INPUT_FILE\"\necho \"$PATH\"\nexec cat /opt/data\n", nil))
	tree["opt/data"] = "data\n"
	x.place("algorithm-1.0.sif", siftest.Write(t, siftest.System(siftest.Squashfs(t, tree))))

	p, img := x.pull("sif:algorithm-1.0")
	if !p.Converted || img.ID != p.ImageID {
		t.Errorf("converted %v; the runtime's id is %s, announced was %s", p.Converted, img.ID, p.ImageID)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	code, out := x.output(x.start(p.Reference, func(k *runtime.ContainerSpec) {
		k.Args = []string{"one", "two words"}
		k.Env = []runtime.EnvVar{{Name: "INPUT_FILE", Value: "/in"}}
	}))
	if want := "args: one two words\nhello from the environment /in\n/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\ndata\n"; code != 0 || out != want {
		t.Errorf("exit code %d, output\n%swant\n%s", code, out, want)
	}
	awaitNoLayers(t, x.dir)

	// The second time nothing is converted, and the runtime has the image.
	second, err := x.s.Resolve(t.Context(), "sif:algorithm-1.0.sif", nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := x.s.Ensure(t.Context(), second, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Release()
	if have, err := x.c.Image(t.Context(), again.ImageID); err != nil || again.Converted || again.ImageID != p.ImageID {
		t.Errorf("%v, %v, converted again: %v", have, err, again.Converted)
	}
}

func TestTheEndOfATaskReachesTheRunscript(t *testing.T) {
	x := newWorld(t)
	tree := sameMachine(t, siftest.Apptainer("", "trap 'echo ended; exit 7' TERM\necho ready\nwhile :; do sleep 0.1; done\n", nil))
	x.place("a.sif", siftest.Write(t, siftest.System(siftest.Squashfs(t, tree))))
	p, _ := x.pull("sif:a")
	defer p.Release()
	s := x.start(p.Reference, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	errReady := errors.New("ready")
	if err := runtime.FollowLog(ctx, s.log, runtime.LogPos{}, func(l runtime.LogLine, _ runtime.LogPos) error {
		if string(l.Text) == "ready" {
			return errReady
		}
		return nil
	}); !errors.Is(err, errReady) {
		t.Fatal(err)
	}
	if err := x.c.StopContainer(t.Context(), s.id, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if code, out := x.output(s); code != 7 || !strings.Contains(out, "ended") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestAnImageWithAnOCIConfigurationRunsAsThatSays(t *testing.T) {
	x := newWorld(t)
	tree := sameMachine(t, siftest.Apptainer("", siftest.OCIRunscript, nil))
	tree["opt/file"] = "in the working directory\n"
	x.place("docker.sif", siftest.Write(t, siftest.System(siftest.Squashfs(t, tree)),
		siftest.JSON("oci-config.json", `{"Entrypoint":["/bin/sh","-c"],"Cmd":["id -u; cat file; echo $A"],"Env":["A=b c"],"User":"1000:1000","WorkingDir":"/opt"}`)))
	p, _ := x.pull("sif:docker")
	defer p.Release()
	if code, out := x.output(x.start(p.Reference, nil)); code != 0 || out != "1000\nin the working directory\nb c\n" {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

// A runtime that lost an image, and kept nothing of it, gets it again.
func TestALayerThatIsGoneIsMadeAgainWhenItIsAskedFor(t *testing.T) {
	x := newWorld(t)
	tree := sameMachine(t, siftest.Apptainer("", "exec cat /opt/data\n", nil))
	tree["opt/data"] = "data\n"
	x.place("a.sif", siftest.Write(t, siftest.System(siftest.Squashfs(t, tree))))
	p, img := x.pull("sif:a")
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if err := x.c.RemoveImage(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	p, _ = x.pull("sif:a")
	defer p.Release()
	if p.Converted {
		t.Error("the record was lost")
	}
	if code, out := x.output(x.start(p.Reference, nil)); code != 0 || out != "data\n" {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestWithoutTheLoginNothingCanBePulled(t *testing.T) {
	x := newWorld(t)
	x.place("a.sif", siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": "b"}))))
	r, err := x.s.Resolve(t.Context(), "sif:a", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := x.s.Ensure(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for _, auth := range []*runtime.Auth{nil, {Username: p.Username, Password: "guess"}} {
		if _, err := x.c.PullImage(t.Context(), p.Reference, auth, runtime.PullOptions{}); !errors.Is(err, runtime.ErrRegistryDenied) {
			t.Errorf("got %v", err)
		}
	}
}

// What Apptainer made looks inside a running container as the kernel shows its squashfs.
func TestInsideAContainerAnImageOfApptainerIsWhatTheKernelShows(t *testing.T) {
	goldens := imagetest.Goldens(t)
	x := newWorld(t)
	for _, g := range goldens {
		t.Run(g.Name, func(t *testing.T) {
			x.place(g.Name, g.File.Name())
			p, _ := x.pull("sif:" + g.Name)
			defer p.Release()
			s := x.start(p.Reference, func(k *runtime.ContainerSpec) { k.Command = []string{"/bin/sleep", "600"} })
			roots, err := filepath.Glob(filepath.Join("/run", "v6node-*-containerd", "io.containerd.runtime.v2.task", "k8s.io", s.id, "rootfs"))
			if err != nil || len(roots) != 1 {
				t.Fatalf("%v, %q", err, roots)
			}
			sameInside(t, imagetest.ListDir(t, roots[0]), g.Nodes)
			if err := x.c.StopContainer(t.Context(), s.id, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// sameInside compares a container's root with its image. The runtime makes the places
// where it mounts something, in directories whose times change then; and the root itself
// is a new directory, to which containerd gives the image's owner but not its time.
func sameInside(t *testing.T, got, want map[string]imagetest.Node) {
	t.Helper()
	for p := range got {
		if _, ok := want[p]; ok {
			continue
		}
		if !slices.Contains([]string{"etc/hosts", "etc/hostname", "etc/resolv.conf"}, p) && !strings.HasPrefix(p, "dev/") {
			t.Errorf("%s is not in the image", p)
		}
		delete(got, p)
	}
	for _, dir := range []string{".", "etc", "dev"} {
		n := got[dir]
		n.MTime = want[dir].MTime
		got[dir] = n
	}
	imagetest.Equal(t, got, want)
}
