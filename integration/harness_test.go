//go:build integration

// Package integration tests v6node as a whole: real node processes, a real
// container runtime, algorithms in real sandboxes, and the stand-in server. One
// suite of scenarios runs on each kind of runtime: the containerd that a node
// starts by itself, and one that an administrator started before.
//
// The programs come from ../bin and ../bundle (`make`), or from the directories
// that V6NODE_BIN and V6NODE_BUNDLE name. What is missing is a failure and never
// a skip, and so is another user than root.
package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

// patience bounds a scenario. Nothing in it waits for time to pass, so this is
// only reached by what will never happen. On a slow machine, such as an emulated
// one, the variable V6NODE_TEST_PATIENCE multiplies it.
var patience = 90 * time.Second * time.Duration(slowness())

func slowness() int {
	text := os.Getenv("V6NODE_TEST_PATIENCE")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		panic("V6NODE_TEST_PATIENCE is not a number above 0: " + text)
	}
	return n
}

// scenario is one statement about the system, proved in a world that other
// scenarios use at the same time.
type scenario struct {
	name string
	run  func(*testing.T, *world)
}

// kind is a kind of container runtime.
type kind string

const (
	embeddedKind kind = "embedded" // each node starts its own containerd
	externalKind kind = "external" // the test starts one containerd for all nodes
	debianKind   kind = "debian"   // the same with Debian's containerd 1.6.20 and runc
	crioKind     kind = "crio"     // the same with CRI-O and runc
	rootlessKind kind = "rootless" // each node is a normal user's, with its own containerd
	oneIDKind    kind = "one id"   // the same of a user who has no subordinate ids
)

// onRuntime runs scenarios in one world on one kind of runtime, side by side
// (go test -parallel bounds how many), and checks at the end that nothing is left.
func onRuntime(t *testing.T, k kind, scenarios []scenario) {
	w := newWorld(t, k)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, w)
		})
	}
}

func (k kind) rootless() bool { return k == rootlessKind || k == oneIDKind }

// world is a server, a registry and a runtime, with nodes that the scenarios
// start or share.
type world struct {
	kind     kind
	dir      string // everything is in it
	bin      string // directory of v6node and its plugin
	programs lab.Programs
	lab      *lab.Lab
	server   *standin.Server
	external *server     // nil where each node has its own
	user     *normalUser // only on the rootless kind
	testalgo imagekit.Ref
	average  imagekit.Ref

	openOnce, sealedOnce sync.Once
	open, sealed         *collaboration

	mu    sync.Mutex
	nodes []*node // all that were ever started
	count int
}

// newWorld makes a world that ends with the test. Its server is as usual unless
// options are given.
func newWorld(t *testing.T, k kind, o ...standin.Options) *world {
	t.Helper()
	if o == nil {
		o = []standin.Options{{}}
	}
	if os.Geteuid() != 0 {
		t.Fatal("the integration tests start containers: run them as root")
	}
	w := &world{kind: k, bin: programDir(t, "V6NODE_BIN", "../bin", "v6node", "v6node-cni")}
	bundle := programDir(t, "V6NODE_BUNDLE", "../bundle",
		"containerd", "containerd-shim-runc-v2", "runc", "rootlesskit", "v6node-runc", "crictl", "v6node-pause", "algorithms/average", "algorithms/testalgo")
	var err error
	if w.programs, err = lab.Find(filepath.Join(w.bin, "v6node"), []string{bundle}); err != nil {
		t.Fatal(err)
	}
	if k.rootless() {
		w.user = newUser(t)
	}
	if k == oneIDKind {
		w.user.withoutSubordinates(t)
	}
	// A short name: sockets of shims have little room for their paths.
	if w.dir, err = os.MkdirTemp("", "v6it-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end(t) })
	if err := os.Mkdir(w.tmp(), 0o700); err != nil {
		t.Fatal(err)
	}
	if w.user != nil {
		w.reachable(t)
		if err := w.user.own(w.tmp()); err != nil {
			t.Fatal(err)
		}
	}
	if w.lab, err = lab.New(t.Context(), w.dir, w.programs, o[0]); err != nil {
		t.Fatal(err)
	}
	w.server = w.lab.Server
	if w.testalgo, err = w.lab.Push("suite/testalgo", w.programs.Algorithm("testalgo")); err != nil {
		t.Fatal(err)
	}
	if w.average, err = w.lab.Push("suite/average", w.programs.Algorithm("average")); err != nil {
		t.Fatal(err)
	}
	if k != embeddedKind && !k.rootless() {
		w.external = w.startServer(t, "rt")
		w.installNetwork(t, w.external)
		w.external.waitNetwork(t, cni.NetworkName)
	}
	return w
}

// programDir is the directory of programs that the tests need, all of which
// must be there.
func programDir(t *testing.T, variable, fallback string, programs ...string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		dir = fallback
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if info, err := os.Stat(filepath.Join(dir, p)); err != nil || !info.Mode().IsRegular() {
			t.Fatalf("%s is not in %s: run `make` first, or name another directory with %s", p, dir, variable)
		}
	}
	return dir
}

// tmp is the nodes' directory for temporary files.
func (w *world) tmp() string { return filepath.Join(w.dir, "tmp") }

// end stops everything and reports what is left of it.
func (w *world) end(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range w.all() {
		n.forget(t)
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
	found := w.traces()
	if w.external != nil {
		w.external.stop(t)
	}
	if w.lab != nil {
		if err := w.lab.Close(); err != nil {
			t.Error(err)
		}
	}
	found.check(t, w)
	if t.Failed() {
		for _, n := range w.all() {
			t.Logf("node %s ended like this:\n%s", n.Name, n.Log(15))
		}
	}
	found.sweep(t)
	if err := os.RemoveAll(w.dir); err != nil {
		t.Error(err)
	}
}

func (w *world) all() []*node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*node(nil), w.nodes...)
}

// number returns another number at each call, for names.
func (w *world) number() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	return w.count
}

// push packs a test algorithm into an image of its own.
func (w *world) push(t *testing.T, repository string, change ...func(*imagekit.Spec)) imagekit.Ref {
	t.Helper()
	ref, err := w.lab.Push(repository, w.programs.Algorithm("testalgo"), change...)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// registry starts a registry of the scenario's own, with the test algorithm in
// it, that it may hold or break without disturbing others.
func (w *world) registry(t *testing.T, o imagekit.RegistryOptions) *imagekit.Registry {
	t.Helper()
	r, err := imagekit.Serve(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// pack builds an image of the test algorithm, with a mark that makes it another
// image than those with other marks. Algorithms see it as IMAGE_MARK.
func (w *world) pack(t *testing.T, r *imagekit.Registry, repository, mark string) imagekit.Ref {
	t.Helper()
	img, err := imagekit.Build(imagekit.Spec{
		Binary: w.programs.Algorithm("testalgo"), Files: imagekit.Skeleton(), Env: []string{"PKG_NAME=testalgo", "IMAGE_MARK=" + mark},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := r.Push(repository, "latest", img)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// within bounds what a scenario waits for.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually asks again until the answer is nil, for conditions that nobody
// announces.
func eventually(t testing.TB, ask func() error) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(errors.Join(err, ctx.Err()))
		}
	}
}
