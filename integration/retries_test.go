//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/runtime"
)

// retryScenarios are about what runs again, and what does not.
func retryScenarios() []scenario {
	return []scenario{
		{"an algorithm whose sandbox is removed by hand ends with a reason and does not run again", removedByHand},
		{"an algorithm that crashed runs again where the configuration says so", runsAgain},
		{"a start that the runtime refuses is tried again", startsAgain},
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

// startsAgain takes the name of the sandbox that the run's first try makes.
func startsAgain(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	n.command(t, "pause")
	task, run := n.post(t, "noop", nil)
	n.queued(t, 1)
	rt, group := n.runtime(t), n.runtime(t).Cgroup(n.instance(t), "occupant")
	occupant, err := rt.RunSandbox(within(t), &runtime.SandboxSpec{
		Name: fmt.Sprintf("run-%d", run), Namespace: engine.Namespace, UID: fmt.Sprintf("%s-%d", n.instance(t), run), Attempt: 1,
		Hostname: "occupant", LogDirectory: t.TempDir(), CgroupParent: group.Parent(),
		Labels: map[string]string{"ai.vantage6.test": "occupant"}, // no kubelet's
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(rt.StopSandbox(ctx, occupant), rt.RemoveSandbox(ctx, occupant), group.Remove(ctx)); err != nil {
			t.Error(err)
		}
	})
	n.command(t, "resume")
	completed[any](t, n.finish(t, task))
	n.onceDelivered(t, run)
	if log := n.Log(1000); !strings.Contains(log, "a start failed, trying again") {
		t.Errorf("the log does not tell of the try that failed:\n%s", log)
	}
	for _, r := range show[[]admin.Run](t, n, "ps", "-a") {
		if r.ID == run && r.Attempt != 2 {
			t.Errorf("it was started at try %d", r.Attempt)
		}
	}
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
