//go:build integration

package integration

import (
	"net/http"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

func killScenarios() []scenario {
	return []scenario{
		{"a run is killed while its image is pulled", killWhilePulling},
		{"a run is killed while it starts", killWhileStarting},
		{"a run is killed while its algorithm runs", killWhileRunning},
		{"a kill reaches an algorithm that ignores SIGTERM", killDeaf},
		{"everything on a node is killed at once, and the node reports it", killNode},
	}
}

// killed checks that the kill is the run's last word and that nothing of it is
// left. It returns the run.
func (n *node) killed(t *testing.T, run int64, started bool) standin.RunRecord {
	t.Helper()
	n.gone(t, run)
	r, _ := n.w.server.Run(run)
	if r.Status != standin.StatusKilled || r.FinishedAt == nil {
		t.Errorf("the run is %q, finished %v", r.Status, r.FinishedAt)
	}
	if r.Result != nil && *r.Result != "" {
		t.Errorf("the killed run has a result: %q", *r.Result)
	}
	active := false
	for _, e := range r.History {
		if e.Kind == standin.RunPatched {
			active = active || e.Field("status") == standin.StatusActive
		}
	}
	if active != started {
		t.Errorf("the server heard that the algorithm is active: %t, wanted %t", active, started)
	}
	return r
}

func (n *node) kill(t *testing.T, task int64) {
	t.Helper()
	if err := n.researcher.Kill(within(t), task); err != nil {
		t.Fatal(err)
	}
}

func killWhilePulling(t *testing.T, w *world) {
	alpha := w.alpha(t)
	slow := w.registry(t, imagekit.RegistryOptions{})
	ref := w.pack(t, slow, "slow/algorithm", "slow")
	release := slow.HoldBlobs()
	defer release()
	task, run := alpha.post(t, "noop", nil, image(ref.Tag))
	if err := slow.WaitHeld(within(t), 1); err != nil {
		t.Fatal(err)
	}
	alpha.kill(t, task)
	alpha.killed(t, run, false)
	release()
	// The image is not spoiled by the pull that was given up.
	completed[any](t, alpha.call(t, "noop", nil, image(ref.Tag)))
}

func killWhileStarting(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	completed[any](t, n.call(t, "noop", nil)) // the image is there
	held := w.server.Fault(standin.Fault{Method: http.MethodPost, Path: "/token/container", Who: n.ID(), Delay: patience})
	task, run := n.post(t, "noop", nil)
	if err := held.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	n.kill(t, task)
	n.killed(t, run, false)
	held.Remove()
	completed[any](t, n.call(t, "noop", nil))
}

func killWhileRunning(t *testing.T, w *world) {
	alpha := w.alpha(t)
	g := alpha.hold(t)
	if list := alpha.sandboxes(t, g.run); len(list) != 1 || !list[0].Ready {
		t.Fatalf("sandboxes before the kill: %+v", list)
	}
	alpha.kill(t, g.task)
	alpha.killed(t, g.run, true)
}

func killDeaf(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"stop_grace": "100ms"}})
	task, run := n.post(t, "ignore_term", kwargs{"seconds": 3600})
	n.active(t, run)
	n.kill(t, task)
	n.killed(t, run, true)
}

// killNode uses the order that leaves the runs open at the server, so that it is
// the node that ends them.
func killNode(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	first, second := n.hold(t), n.hold(t)
	if err := n.researcher.KillNode(within(t), n.ID()); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*gate{first, second} {
		if _, err := w.server.WaitRun(within(t), g.run, standin.StatusKilled); err != nil {
			t.Fatal(err)
		}
		if r := n.killed(t, g.run, true); r.Count(standin.RunKilled) != 0 {
			t.Errorf("the server had ended run %d before: %+v", g.run, r.History)
		}
	}
	completed[any](t, n.call(t, "noop", nil))
}
