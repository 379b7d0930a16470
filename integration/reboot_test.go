//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/audit"
)

// TestAMachineThatRestarts takes away what a restart of the machine takes away:
// processes, mounts, network namespaces, control groups and sockets, and in the
// last case everything that the runtime knew.
func TestAMachineThatRestarts(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, n *node){
		"with what the runtime keeps": func(*testing.T, *node) {},
		"with nothing of the runtime": func(t *testing.T, n *node) {
			for _, dir := range []string{"containerd", "containerd-state"} {
				if err := os.RemoveAll(filepath.Join(n.StateDir, dir)); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) { reboot(t, lose) })
	}
}

func reboot(t *testing.T, lose func(*testing.T, *node)) {
	w := newWorld(t, embeddedKind)
	n := w.start(t, nodeOptions{Extra: map[string]any{"resources": w.resources(map[string]any{"runs": 2, "memory": "1t", "pids": 1_000_000})}})
	living := n.hold(t)
	queued, queuedRun := n.post(t, "count", nil)
	n.queued(t, 1)

	machine := w.traces()
	n.Kill()
	machine.sweep(t)
	lose(t, n)
	n.restart(t)

	// It may have come far, so it is not executed again.
	done := n.finish(t, living.task)
	if done.Status != standin.StatusCrashed || !strings.Contains(done.Text, "v6node: ") {
		t.Errorf("the run that lived ended as %q: %s", done.Status, done.Text)
	}
	if got := completed[struct{ Count int }](t, n.finish(t, queued)); got.Count != 1 {
		t.Errorf("the run in the queue was executed %d times", got.Count)
	}
	for _, run := range []int64{living.run, queuedRun} {
		n.onceDelivered(t, run)
		n.gone(t, run)
		if err := n.startedOnce(run); err != nil {
			t.Error(err)
		}
	}
	completed[any](t, n.call(t, "noop", nil))
}

// startedOnce asks the audit log how often an algorithm was started.
func (n *node) startedOnce(run int64) error {
	started := 0
	err := audit.Each(filepath.Join(n.StateDir, audit.DirName), func(l *audit.Line) error {
		if !l.Whole { // the node is just writing it
			return nil
		}
		e, err := l.Entry()
		if err == nil && e.Event == audit.Started && e.Run == run {
			started++
		}
		return err
	})
	if err == nil && started != 1 {
		err = fmt.Errorf("the audit log says that run %d was started %d times", run, started)
	}
	return err
}
