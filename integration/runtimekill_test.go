//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/failpoint"
)

// containerd is killed once at each step of a run's life, while the node waits
// there, and is away when the node goes on: the algorithm is executed once, its
// result delivered once, nothing is left, and the node lives through it.

func TestContainerdKilledAtAnyStepLosesAndRepeatsNothingOnEmbeddedContainerd(t *testing.T) {
	onRuntime(t, embeddedKind, append(runtimeKillScenarios(t), scenario{"a monitor and a network namespace that nobody knows", strays}))
}

// All nodes share the external one, so that is killed for one after the other.
func TestContainerdKilledAtAnyStepLosesAndRepeatsNothingOnExternalContainerd(t *testing.T) {
	w := newWorld(t, externalKind)
	for _, s := range runtimeKillScenarios(t) {
		t.Run(s.name, func(t *testing.T) { s.run(t, w) })
	}
}

func runtimeKillScenarios(t *testing.T) []scenario {
	programs := programDir(t, "V6NODE_FAILPOINTS", "../bin/failpoints", "v6node", "v6node-cni")
	program := filepath.Join(programs, "v6node")
	var all []scenario
	for _, p := range failpoint.Points {
		all = append(all, scenario{string(p), func(t *testing.T, w *world) { runtimeKilledAt(t, w, program, p) }})
	}
	return append(all,
		scenario{"the algorithm ends while containerd is away", func(t *testing.T, w *world) { endedUnseen(t, w) }},
		scenario{"an image is removed while its run starts", func(t *testing.T, w *world) { imageRemovedInStart(t, w, program) }},
	)
}

// stoppable makes a node that waits once at a point, and what returns when it
// has come there. The node goes on when the file is closed.
func (w *world) stoppable(t *testing.T, program string, p failpoint.Point) (n *node, reached func() *os.File) {
	t.Helper()
	armed, pipe := filepath.Join(t.TempDir(), "armed"), filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	n = w.start(t, nodeOptions{Program: program, Env: []string{"V6NODE_BUNDLE=" + w.programs.Bundle, "V6NODE_FAILPOINT=" + armed}})
	if err := os.WriteFile(armed, []byte(string(p)+" "+pipe), 0o600); err != nil {
		t.Fatal(err)
	}
	return n, func() *os.File {
		t.Helper()
		var held *os.File
		eventually(t, func() (err error) { // until the node has opened it too
			held, err = os.OpenFile(pipe, os.O_WRONLY|unix.O_NONBLOCK, 0)
			return err
		})
		t.Cleanup(func() { _ = held.Close() }) // mostly it is closed by then
		return held
	}
}

// runtimePID is the process of the runtime that the node uses.
func (n *node) runtimePID(t *testing.T) int {
	t.Helper()
	if n.w.external != nil {
		return n.w.external.cmd.Process.Pid
	}
	r, err := n.runtimeRecord()
	if err != nil {
		t.Fatal(err)
	}
	if line := commandLine(r.PID); !strings.Contains(line, n.StateDir) {
		t.Fatalf("process %d is not the node's containerd but %q", r.PID, line)
	}
	return r.PID
}

type runtimeRecord struct{ PID int }

func (n *node) runtimeRecord() (r runtimeRecord, err error) {
	b, err := os.ReadFile(filepath.Join(n.StateDir, "containerd-state", "containerd.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// comesBack starts an external runtime again that was killed, and waits for the
// node's own one, which is the node's matter. What ends before that ends unseen.
func (n *node) comesBack(t *testing.T, old int) {
	t.Helper()
	if n.w.external != nil {
		<-n.w.external.ended
		n.w.external.wasKilled = true
		n.w.external.start(t)
		return
	}
	eventually(t, func() error {
		if r, err := n.runtimeRecord(); err != nil || r.PID == old || commandLine(r.PID) == "" {
			return fmt.Errorf("no other containerd than process %d: %w", old, err)
		}
		_, err := n.runtime(t).ListSandboxes(within(t), nil)
		return err
	})
}

func runtimeKilledAt(t *testing.T, w *world, program string, p failpoint.Point) {
	n, reached := w.stoppable(t, program, p)
	n.runtime(t) // as long as it can be asked
	g := &gate{n: n}
	g.task, g.run = n.post(t, "gate", nil)
	over := slices.Index(failpoint.Points, p) >= slices.Index(failpoint.Points, failpoint.Ended)
	if over {
		n.openGate(t)
	}
	held := reached()
	old := n.runtimePID(t)
	if err := errors.Join(killAndWait(old), held.Close()); err != nil {
		t.Fatal(err)
	}
	n.comesBack(t, old)
	if !over {
		n.openGate(t)
	}
	n.takenOver(t, g, true)
	n.noTraces(t, g.run)
	n.allOver(t)
	if left := n.sandboxes(t, g.run); len(left) > 0 {
		t.Errorf("%d sandboxes of the run are left", len(left))
	}
}

// openGate lets the node's only algorithm end, once it runs.
func (n *node) openGate(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		marks, err := filepath.Glob(filepath.Join(n.files(), "jobs", "*", "executed"))
		if err != nil || len(marks) != 1 {
			return fmt.Errorf("%d algorithms run: %w", len(marks), err)
		}
		return os.WriteFile(filepath.Join(filepath.Dir(marks[0]), "open"), nil, 0o644)
	})
}

// endedUnseen: containerd throws away what it did not see.
func endedUnseen(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	g := n.hold(t)
	scratch := g.scratch(t)
	st, err := n.runtime(t).ContainerStatus(within(t), n.container(t, g.run).ID)
	if err != nil {
		t.Fatal(err)
	}
	old := n.runtimePID(t)
	if err := errors.Join(unix.Kill(old, unix.SIGSTOP), os.WriteFile(filepath.Join(scratch, "open"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if commandLine(st.PID) != "" {
			return errors.New("the algorithm has not ended yet")
		}
		return nil
	})
	if err := killAndWait(old); err != nil {
		t.Fatal(err)
	}
	n.comesBack(t, old)
	n.takenOver(t, g, true)
	n.noTraces(t, g.run)
}

// strays: containerd was killed when it had started the monitor of a sandbox, or
// made its network namespace, and said so nowhere. The program here is another one
// with that one's name, and the namespace another one at such a place.
func strays(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	g := n.hold(t) // whose monitor and namespace stay
	sandbox, err := n.runtime(t).SandboxStatus(within(t), n.sandboxes(t, g.run)[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	namespace := filepath.Join(filepath.Dir(sandbox.NetNS), "cni-nobody's")
	if err := os.WriteFile(namespace, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/self/ns/net", namespace, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	stray := &exec.Cmd{Path: "/bin/sh", Args: []string{"containerd-shim-runc-v2", "-c", "read line",
		"-namespace", "k8s.io", "-id", "nobody's", "-address", strings.TrimPrefix(n.endpoint(t), "unix://")}}
	in, err := stray.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stray.Wait() }()
	defer in.Close() //nolint:errcheck // it ends the program if nobody else has
	old := n.runtimePID(t)
	if err := killAndWait(old); err != nil {
		t.Fatal(err)
	}
	n.comesBack(t, old)
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("it ended by itself: %v", err)
		}
	case <-within(t).Done():
		t.Error("it lives")
	}
	eventually(t, func() error {
		if _, err := os.Stat(namespace); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the namespace is still there (%w)", err)
		}
		return nil
	})
	if mounts := w.traces().mounts(t); !slices.Contains(mounts, sandbox.NetNS) {
		t.Errorf("the network namespace of a living sandbox is gone: %v", mounts)
	}
	g.release(t)
	n.takenOver(t, g, true)
}

func imageRemovedInStart(t *testing.T, w *world, program string) {
	n, reached := w.stoppable(t, program, failpoint.Sandbox)
	ref := w.pack(t, w.lab.Registry, fmt.Sprintf("removed-%d/algorithm", w.number()), fmt.Sprint("removed ", w.number()))
	task, run := n.post(t, "count", nil, image(ref.Tag))
	held := reached()
	eventually(t, func() error {
		_, err := n.runtime(t).Image(within(t), ref.Pinned)
		return err
	})
	n.removeImage(t, ref.Pinned)
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	n.ranOnce(t, task, run, 0)
}
