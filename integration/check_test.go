//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/node/check"
	"github.com/v6node/v6node/runtime"
)

// checked is what v6node check says.
type checked struct {
	Results []check.Result
	Summary check.Summary
	failed  bool
}

// check runs v6node check for a node's configuration.
func (w *world) check(t *testing.T, n *node, args ...string) checked {
	t.Helper()
	out, errOut, err := w.v6node(t, append([]string{"check", "-o", "json", "--config", n.Config, "--bundle-dir", w.programs.Bundle}, args...)...)
	c := checked{failed: err != nil}
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errOut)
	}
	if c.failed != (c.Summary.Fail > 0) {
		t.Errorf("it ended with %v and %d failures", err, c.Summary.Fail)
	}
	return c
}

// want looks for a result; an empty status stands for any.
func (c checked) want(t *testing.T, group, name string, status check.Status, text string) {
	t.Helper()
	i := slices.IndexFunc(c.Results, func(r check.Result) bool { return r.Group == group && r.Name == name })
	if i < 0 {
		t.Errorf("there is no result %s, %s in %+v", group, name, c.Results)
		return
	}
	if r := c.Results[i]; status != "" && r.Status != status || !strings.Contains(r.Detail+r.Fix, text) {
		t.Errorf("%+v, wanted %s with %q", r, status, text)
	}
}

func TestCheckOnEmbeddedContainerd(t *testing.T) {
	w := newWorld(t, embeddedKind)
	n := w.configure(t, nodeOptions{Sealed: true})
	c := w.check(t, n)
	if c.failed {
		t.Errorf("something failed: %+v", c.Results)
	}
	c.want(t, "machine", "overlayfs", check.OK, "")
	c.want(t, "runtime", "endpoint", check.OK, "containerd v2.4.2")
	c.want(t, "runtime", "ready", check.OK, "")
	c.want(t, "storage", "state directory", "", "free")
	c.want(t, "server", "clock", check.OK, "")
	c.want(t, "server", "encryption", check.OK, "")
}

// sharedWithKubelet: the pod of a kubelet is on the runtime that a node is to
// use.
func sharedWithKubelet(t *testing.T, w *world) {
	s := w.startServer(t, "kc")
	t.Cleanup(func() { s.stop(t) })
	n := w.configure(t, nodeOptions{Endpoint: s.endpoint()})
	c := w.check(t, n, "--cri-endpoint", s.endpoint())
	c.want(t, "runtime", "ready", check.Fail, "v6node cni install")
	c.want(t, "runtime", "network", check.Fail, "v6node cni install --conf-dir "+s.confDir)
	w.installNetwork(t, s)
	s.waitNetwork(t, cni.NetworkName)
	c = w.check(t, n, "--cri-endpoint", s.endpoint())
	c.want(t, "runtime", "kubelet", check.OK, "")
	c.want(t, "runtime", "network", check.OK, s.confDir)
	c.want(t, "storage", "image store", "", s.dir)
	if c.failed {
		t.Errorf("something failed: %+v", c.Results)
	}

	rt, err := runtime.Dial(within(t), s.endpoint(), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	group := rt.Cgroup("kubelet", "pod")
	if err := group.Create(runtime.Resources{}); err != nil {
		t.Fatal(err)
	}
	id, err := rt.RunSandbox(within(t), &runtime.SandboxSpec{
		Name: "coredns-1", Namespace: "kube-system", UID: "b0a7", LogDirectory: filepath.Join(s.dir, "pods"), CgroupParent: group.Parent(),
	})
	if err != nil {
		t.Fatal(err)
	}
	removed := false
	remove := func() {
		if removed {
			return
		}
		removed = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := rt.RemoveSandbox(ctx, id); err != nil {
			t.Error(err)
		}
		if err := group.Remove(ctx); err != nil {
			t.Error(err)
		}
	}
	defer remove()
	c = w.check(t, n, "--cri-endpoint", s.endpoint())
	c.want(t, "runtime", "kubelet", check.Fail, `"kube-system/coredns-1"`)
	n.exits(t, exitRuntime, "a kubelet uses this container runtime too", "give v6node a runtime of its own")

	// Without the pod the same node starts.
	remove()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitOnline(within(t)); err != nil {
		t.Fatal(err)
	}
}
