//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Version B is installed over version A while a node of A runs an algorithm.
func TestAnUpgradeKeepsTheRunningAlgorithms(t *testing.T) {
	w := newWorld(t, embeddedKind)
	prefix := filepath.Join(w.dir, "usr")
	versionA, versionB := w.version(t, "1.0.0-a", w.programs.Bundle), w.version(t, "1.0.0-b", w.changedBundle(t))
	w.install(t, versionA, prefix)

	n := w.start(t, nodeOptions{Program: filepath.Join(prefix, "bin", "v6node")})
	if got := n.version(t); got != "1.0.0-a" {
		t.Fatalf("the node is of version %q", got)
	}
	g := n.hold(t)
	w.install(t, versionB, prefix)
	if got := n.version(t); got != "1.0.0-a" {
		t.Fatalf("the running node has become version %q", got)
	}
	refused, err := exec.Command(filepath.Join(prefix, "bin", "v6node"), "uninstall", "--destdir", w.dir, "--prefix", "/usr").CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 14 {
		t.Errorf("uninstalling beside a running node: %v: %s", err, refused)
	}
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if got := n.version(t); got != "1.0.0-b" {
		t.Fatalf("the restarted node is of version %q", got)
	}
	n.attended(t, g)
	// The old containerd still has the old algorithm; new ones join it.
	completed[any](t, n.call(t, "noop", nil))
	g.release(t)
	n.takenOver(t, g, true)

	// With nothing running, the next start is wholly of the new version.
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	completed[any](t, n.call(t, "noop", nil))
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(prefix, "bin", "v6node"), "uninstall", "--destdir", w.dir, "--prefix", "/usr").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	left, err := os.ReadDir(prefix)
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
	if _, err := os.Stat(filepath.Join(n.StateDir, "ledger.db")); err != nil {
		t.Errorf("the state is gone: %v", err)
	}
}

// release is a v6node as somebody has unpacked it.
type release struct{ program, bundle string }

// version builds v6node as another version.
func (w *world) version(t *testing.T, version, bundle string) release {
	t.Helper()
	dir := filepath.Join(w.dir, version)
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", dir+"/", "../cmd/v6node", "../cmd/v6node-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return release{filepath.Join(dir, "v6node"), bundle}
}

// changedBundle is the tests' bundle with each program a little longer, as a
// new version would be.
func (w *world) changedBundle(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(w.dir, "bundle-b")
	if err := os.CopyFS(dir, os.DirFS(w.programs.Bundle)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "v6node-pause"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (w *world) install(t *testing.T, r release, prefix string) {
	t.Helper()
	rel, err := filepath.Rel(w.dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(r.program, "install", "--destdir", w.dir, "--prefix", "/"+rel, "--bundle-dir", r.bundle).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// version asks the running node for its version.
func (n *node) version(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(n.w.bin, "v6node"), "version", "-o", "json", "--state-dir", n.StateDir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Node struct{ Version string } `json:"node"`
	}
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatal(err)
	}
	return v.Node.Version
}
