//go:build integration

package integration

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

func stopScenarios() []scenario {
	return []scenario{
		{"a node that drains begins nothing and ends with its last run", drain},
		{"a node that stops its runs says so to the server", stopRuns},
	}
}

// asked tells a node to stop without waiting for its end.
func (n *node) asked(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(n.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func (n *node) endsWell(t *testing.T) {
	t.Helper()
	if code, err := n.Wait(within(t)); err != nil || code != 0 {
		t.Fatalf("the node ended with %d: %v", code, err)
	}
}

func drain(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Args: []string{"--drain"}})
	g := n.hold(t)
	n.asked(t)
	eventually(t, func() error {
		if !strings.Contains(n.Log(100), "stopping when all runs are over") {
			return errors.New("the node does not say what it waits for")
		}
		return nil
	})
	later, run := n.post(t, "count", nil)
	n.queued(t, 1)
	g.release(t)
	n.endsWell(t)
	if got := completed[gated](t, n.finish(t, g.task)); got.Executed != 1 || got.Proxy != 200 {
		t.Errorf("the run that was waited for: %+v", got)
	}
	n.leftNothing(t, g.run)
	if r, _ := w.server.Run(run); r.FinishedAt != nil || r.StartedAt != nil {
		t.Errorf("the run in the queue: %+v", r)
	}
	n.restart(t)
	completed[struct{}](t, n.finish(t, later))
}

func stopRuns(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Args: []string{"--stop-runs"}})
	g := n.hold(t)
	n.asked(t)
	n.endsWell(t)
	done := n.finish(t, g.task)
	if done.Status != standin.StatusKilled || !strings.Contains(done.Text, "--stop-runs") {
		t.Errorf("the run ended as %q: %s", done.Status, done.Text)
	}
	n.leftNothing(t, g.run)
}
