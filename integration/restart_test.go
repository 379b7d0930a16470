//go:build integration

package integration

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/runtime"
)

func restartScenarios() []scenario {
	return []scenario{
		{"a run outlives a restart of its node", func(t *testing.T, w *world) {
			n := w.start(t, nodeOptions{})
			g := n.hold(t)
			if err := n.Stop(within(t)); err != nil {
				t.Fatal(err)
			}
			n.restart(t)
			n.attended(t, g)
			g.release(t)
			n.takenOver(t, g, true)
		}},
		{"a run outlives the death of its node", func(t *testing.T, w *world) {
			n := w.start(t, nodeOptions{})
			g := n.hold(t)
			n.Kill()
			n.restart(t)
			n.attended(t, g)
			g.release(t)
			n.takenOver(t, g, true)
		}},
		{"a run that ends while its node is away is delivered by the next start", func(t *testing.T, w *world) {
			n := w.start(t, nodeOptions{})
			g := n.hold(t)
			n.Kill()
			g.release(t)
			n.exited(t)
			n.restart(t)
			n.takenOver(t, g, false)
		}},
		{"a kill that comes while the node is away is obeyed by the next start", func(t *testing.T, w *world) {
			n := w.start(t, nodeOptions{})
			g := n.hold(t)
			n.Kill()
			n.offline(t)
			n.kill(t, g.task)
			n.restart(t)
			n.killed(t, g.run, true)
		}},
		{"a node that stops while the server acknowledges a result leaves nothing of the run", stopWhileDelivering},
	}
}

func (n *node) offline(t *testing.T) {
	t.Helper()
	if err := n.w.server.WaitNode(within(t), n.ID(), false); err != nil {
		t.Fatal(err)
	}
}

// restart starts a node that has ended.
func (n *node) restart(t *testing.T) {
	t.Helper()
	n.offline(t)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitOnline(within(t)); err != nil {
		t.Fatal(err)
	}
}

// attended waits until a node that was started again looks after its run: it
// opens the run's proxy first and then repeats that the algorithm is active. Call
// it after each start.
func (n *node) attended(t *testing.T, g *gate) {
	t.Helper()
	g.restarts++
	if _, err := n.w.server.WaitRunFor(within(t), g.run, func(r standin.RunRecord) bool {
		told := 0
		for _, e := range r.History {
			if e.Field("status") == standin.StatusActive {
				told++
			}
		}
		return told > g.restarts
	}); err != nil {
		t.Fatal(err)
	}
}

// exited waits until the runtime says that the node's only container has ended.
func (n *node) exited(t *testing.T) {
	t.Helper()
	labels := map[string]string{"ai.vantage6.node": n.instance(t)}
	eventually(t, func() error {
		list, err := n.runtime(t).ListContainers(within(t), labels)
		if err != nil {
			return err
		}
		if len(list) != 1 {
			t.Fatalf("there are %d containers", len(list))
		}
		if list[0].State != runtime.StateExited {
			return errors.New("the algorithm has not ended yet")
		}
		return nil
	})
}

// takenOver checks that an algorithm was executed once and delivered once. Its
// proxy works after the restart, unless nobody was there to serve it.
func (n *node) takenOver(t *testing.T, g *gate, served bool) {
	t.Helper()
	done := n.finish(t, g.task)
	got := completed[gated](t, done)
	if got.Executed != 1 {
		t.Errorf("the algorithm was executed %d times", got.Executed)
	}
	if served && got.Proxy != 200 || !served && got.Proxy != 0 {
		t.Errorf("its proxy answered %d (%s)", got.Proxy, got.Error)
	}
	n.onceDelivered(t, g.run)
	if refused := done.Count(standin.RunPatchRefused); refused != 0 {
		t.Errorf("%d reports were refused: %+v", refused, done.History)
	}
	n.gone(t, g.run)
}

func stopWhileDelivering(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	g := n.hold(t)
	if list := n.sandboxes(t, 0); len(list) != 1 {
		t.Fatalf("%d sandboxes live", len(list))
	}
	slow := w.server.Fault(standin.Fault{Method: http.MethodPatch, Path: fmt.Sprintf("/run/%d", g.run), Times: 1, SlowBody: time.Second})
	g.release(t)
	if err := slow.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	completed[gated](t, n.finish(t, g.task))
	n.leftNothing(t, g.run)
}

// leftNothing checks that nothing is left of a run, and no other run lives, of a
// node that has ended.
func (n *node) leftNothing(t *testing.T, run int64) {
	t.Helper()
	if _, err := os.Stat(n.runDir(run)); !os.IsNotExist(err) {
		t.Errorf("the run's files are left (%v)", err)
	}
	if n.w.external == nil {
		// It ends only when nothing lives in it.
		if _, err := os.Stat(strings.TrimPrefix(n.endpoint(t), "unix://")); !os.IsNotExist(err) {
			t.Errorf("the node's own containerd is left (%v)", err)
		}
		return
	}
	if left := n.sandboxes(t, 0); len(left) != 0 {
		t.Errorf("%d sandboxes are left", len(left))
	}
}
