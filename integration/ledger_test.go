//go:build integration

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/runtime"
)

func ledgerScenarios() []scenario {
	return []scenario{
		{"a damaged ledger is set aside and rebuilt", func(t *testing.T, w *world) {
			lostLedger(t, w, "the ledger was damaged", func(path string) error {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				clear(b) // what a disk gives back for a block that it has lost
				return os.WriteFile(path, b, 0o600)
			})
			set, err := filepath.Glob(filepath.Join(w.dir, "*", "state", "ledger.db.damaged-*"))
			if err != nil || len(set) != 1 {
				t.Errorf("set aside: %v (%v)", set, err)
			}
		}},
		{"a ledger that is missing is rebuilt", func(t *testing.T, w *world) {
			lostLedger(t, w, "the ledger is missing", os.Remove)
		}},
	}
}

// lostLedger takes the ledger away from a node that was killed, with a run that
// goes on, one that ends meanwhile, one whose sandbox is removed meanwhile, and
// one in the queue. One of the four slots is kept for subtasks.
func lostLedger(t *testing.T, w *world, said string, lose func(path string) error) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"resources": w.resources(map[string]any{"runs": 4, "memory": "1t", "pids": 1_000_000})}})
	living, ending, removed := n.hold(t), n.hold(t), n.hold(t)
	queued, queuedRun := n.post(t, "count", nil)
	n.queued(t, 1)
	list := n.sandboxes(t, removed.run)
	if len(list) != 1 {
		t.Fatalf("run %d has %d sandboxes", removed.run, len(list))
	}
	n.Kill()
	n.offline(t)
	ending.release(t)
	eventually(t, func() error {
		c, err := n.runtime(t).ListContainers(within(t), map[string]string{"ai.vantage6.run": strconv.FormatInt(ending.run, 10), "ai.vantage6.node": n.instance(t)})
		if err == nil && (len(c) != 1 || c[0].State != runtime.StateExited) {
			err = errors.New("the algorithm has not ended yet")
		}
		return err
	})
	if err := n.runtime(t).RemoveSandbox(within(t), list[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := lose(filepath.Join(n.StateDir, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	n.attended(t, living)
	eventually(t, func() error {
		if log := n.Log(200); !strings.Contains(log, said) || !strings.Contains(log, "the ledger is rebuilt") {
			return errors.New("the node does not say that it has lost its ledger")
		}
		return nil
	})
	living.release(t)
	n.takenOver(t, living, true)
	n.takenOver(t, ending, false)
	// It may have run, and its result is lost: it is not executed again.
	if done := n.finish(t, removed.task); done.Status != "crashed" || !strings.Contains(done.Text, "disappeared") {
		t.Errorf("the run whose sandbox is gone ended as %q: %s", done.Status, done.Text)
	}
	if got := completed[struct{ Count int }](t, n.finish(t, queued)); got.Count != 1 {
		t.Errorf("the run in the queue was executed %d times", got.Count)
	}
	n.gone(t, queuedRun)
}
