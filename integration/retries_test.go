//go:build integration

package integration

import (
	"errors"
	"fmt"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

// retryScenarios are about what runs again, and what does not.
func retryScenarios() []scenario {
	return []scenario{
		{"an algorithm whose sandbox is removed by hand ends with a reason and does not run again", removedByHand},
		{"an algorithm that crashed runs again where the configuration says so", runsAgain},
	}
}

// removeSandboxes takes a run's sandboxes away behind the node's back. The node
// removes them too as soon as it sees the end, and the runtime refuses the later
// of two such wishes.
func (n *node) removeSandboxes(t *testing.T, run int64) {
	t.Helper()
	rt := n.runtime(t)
	for _, sb := range n.sandboxes(t, run) {
		eventually(t, func() error {
			return errors.Join(rt.StopSandbox(within(t), sb.ID), rt.RemoveSandbox(within(t), sb.ID))
		})
	}
}

func removedByHand(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	g := n.hold(t)
	n.removeSandboxes(t, g.run)
	n.failed(t, n.finish(t, g.task), standin.StatusCrashed)
}

func runsAgain(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"limits": map[string]any{"crash_retries": 1}}})
	g := n.hold(t)
	n.removeSandboxes(t, g.run)
	eventually(t, func() error {
		if found := n.sandboxes(t, g.run); len(found) != 1 || found[0].Attempt != 2 {
			return fmt.Errorf("%d sandboxes", len(found))
		}
		return nil
	})
	g.release(t)
	if got := completed[gated](t, n.finish(t, g.task)); got.Executed != 2 {
		t.Errorf("it was executed %d times", got.Executed)
	}
	// Each run has its own tries, and no more than these.
	n.failed(t, n.call(t, "exit", kwargs{"code": 3}), standin.StatusCrashed, "exit code 3")
}
