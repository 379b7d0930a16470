//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/failpoint"
)

// containerd is killed once at each step of a run's life, while the node waits
// there, and is away when the node goes on: the algorithm is executed once, its
// result delivered once, nothing is left, and the node lives through it.

func TestContainerdKilledAtAnyStepLosesAndRepeatsNothingOnEmbeddedContainerd(t *testing.T) {
	onRuntime(t, embeddedKind, runtimeKillScenarios(t))
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
	b, err := os.ReadFile(filepath.Join(n.StateDir, "containerd-state", "containerd.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ PID int }
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if line := commandLine(r.PID); !strings.Contains(line, n.StateDir) {
		t.Fatalf("process %d is not the node's containerd but %q", r.PID, line)
	}
	return r.PID
}

// comesBack starts an external runtime again that was killed; the node's own one
// is the node's matter.
func (w *world) comesBack(t *testing.T) {
	t.Helper()
	if w.external != nil {
		<-w.external.ended
		w.external.start(t)
	}
}

func runtimeKilledAt(t *testing.T, w *world, program string, p failpoint.Point) {
	n, reached := w.stoppable(t, program, p)
	task, run := n.post(t, "count", nil)
	held := reached()
	if err := errors.Join(killAndWait(n.runtimePID(t)), held.Close()); err != nil {
		t.Fatal(err)
	}
	w.comesBack(t)
	n.ranOnce(t, task, run, 0)
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
