//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/failpoint"
	"github.com/v6node/v6node/node/admin"
)

// The node is killed once at each step of a run's life and started again: the
// algorithm is executed once, its result is delivered once, and nothing is left.

func TestACrashAtAnyStepLosesAndRepeatsNothingOnEmbeddedContainerd(t *testing.T) {
	onRuntime(t, embeddedKind, crashScenarios(t))
}

func TestACrashAtAnyStepLosesAndRepeatsNothingOnExternalContainerd(t *testing.T) {
	onRuntime(t, externalKind, crashScenarios(t))
}

func crashScenarios(t *testing.T) []scenario {
	programs := programDir(t, "V6NODE_FAILPOINTS", "../bin/failpoints", "v6node", "v6node-cni")
	var all []scenario
	for _, p := range failpoint.Points {
		all = append(all, scenario{string(p), func(t *testing.T, w *world) { crashAt(t, w, filepath.Join(programs, "v6node"), p) }})
	}
	return all
}

func crashAt(t *testing.T, w *world, program string, p failpoint.Point) {
	armed := filepath.Join(t.TempDir(), "armed")
	n := w.start(t, nodeOptions{
		Program: program, Env: []string{"V6NODE_BUNDLE=" + w.programs.Bundle, "V6NODE_FAILPOINT=" + armed},
	})
	if err := os.WriteFile(armed, []byte(p), 0o600); err != nil {
		t.Fatal(err)
	}
	task, run := n.post(t, "count", nil)
	if code, err := n.Wait(within(t)); err != nil || code != -1 {
		t.Fatalf("the node ended with %d, and was to be killed at %q: %v", code, p, err)
	}
	n.restart(t)
	// Of an answer that was lost the node knows nothing, so it asks again.
	repeated := 0
	if p == failpoint.Acknowledged {
		repeated = 1
	}
	n.ranOnce(t, task, run, repeated)
}

// ranOnce checks that the node's only run, which counts its executions, was
// executed once and delivered once, with so many reports more that the server
// refused, and that nothing of it is left.
func (n *node) ranOnce(t *testing.T, task, run int64, repeated int) {
	t.Helper()
	done := n.finish(t, task)
	if got := completed[struct{ Count int }](t, done); got.Count != 1 {
		t.Errorf("the algorithm was executed %d times", got.Count)
	}
	n.onceDelivered(t, run)
	if refused := done.Count(standin.RunPatchRefused); refused > repeated {
		t.Errorf("%d reports were refused: %+v", refused, done.History)
	}
	n.gone(t, run)
	n.noTraces(t, run)
	n.allOver(t)
}

// allOver waits until the node says that nothing of its only run is left.
func (n *node) allOver(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		runs, err := n.Runs()
		if err != nil {
			return err
		}
		if len(runs) != 1 || runs[0].State != admin.Done {
			return fmt.Errorf("the node says of its runs: %+v", runs)
		}
		return nil
	})
}
