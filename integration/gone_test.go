//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
)

func goneScenarios() []scenario {
	return []scenario{{"runs whose tasks are deleted at the server are given up, and a proxy's 404 loses nothing", deletedTasks}}
}

// deletedTasks deletes the tasks of runs in all states, with the node there and away, while a proxy denies another run
// whose result is due.
func deletedTasks(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"poll_interval": "1s"}})
	kept, waiting, killed, forgotten := n.hold(t), n.hold(t), n.hold(t), n.hold(t)
	n.command(t, "pause")
	queuedTask, queued := n.post(t, "noop", nil)
	n.queued(t, 1)

	refuse := func(g *gate, status int) *standin.Injected {
		return w.server.Fault(standin.Fault{Method: http.MethodPatch, Path: fmt.Sprintf("/run/%d", g.run), Status: status, Body: "<html>nginx</html>"})
	}
	proxy, away := refuse(kept, http.StatusNotFound), refuse(waiting, http.StatusBadGateway)
	for _, g := range []*gate{kept, waiting} {
		g.release(t)
	}
	for _, fault := range []*standin.Injected{proxy, away} {
		if err := fault.Wait(within(t), 3); err != nil {
			t.Fatal(err)
		}
	}

	if err := n.researcher.DeleteTask(within(t), killed.task); err != nil { // the server tells the node to kill it
		t.Fatal(err)
	}
	w.server.ForgetTask(forgotten.task)
	n.givenUp(t, killed.run, `it had ended as "killed"`)
	n.givenUp(t, forgotten.run, "its algorithm was stopped after ")

	n.Kill()
	n.offline(t)
	for _, task := range []int64{waiting.task, queuedTask} {
		if err := n.researcher.DeleteTask(within(t), task); err != nil {
			t.Fatal(err)
		}
	}
	n.restart(t)
	n.givenUp(t, waiting.run, `it had ended as "completed"`)
	n.givenUp(t, queued, "its algorithm had not been started")

	proxy.Remove()
	if got := completed[gated](t, n.well(t, kept.task)); got.Executed != 1 {
		t.Errorf("the algorithm whose result a proxy had refused was executed %d times", got.Executed)
	}
	if all := n.onRecord(t, "undelivered", 0); len(all) != 4 {
		t.Errorf("on record are %v", all)
	}
	n.command(t, "resume")
	completed[any](t, n.call(t, "noop", nil))
}

// givenUp checks that nothing is left of a run that the server does not have any more, and that it is told once why.
func (n *node) givenUp(t *testing.T, run int64, says string) {
	t.Helper()
	var found admin.Inspection
	eventually(t, func() error {
		found = show[[]admin.Inspection](t, n, "inspect", fmt.Sprint(run))[0]
		if found.State != admin.Done {
			return fmt.Errorf("run %d is %s", run, found.State)
		}
		return nil
	})
	n.gone(t, run)
	n.noTraces(t, run)
	if o := found.Outcome; o.Reason != "gone" || o.Status != "" || !strings.Contains(o.Message, says) || !found.DeliveredAt.IsZero() {
		t.Errorf("run %d: %+v", run, found)
	}
	if e := n.onRecord(t, "undelivered", run); len(e) != 1 || e[0]["reason"] != found.Outcome.Message {
		t.Errorf("run %d is on record with %v", run, e)
	}
	if got := n.command(t, "events", "--filter", "type=undelivered", "--filter", fmt.Sprintf("run=%d", run)); strings.Count(got, found.Outcome.Message) != 1 {
		t.Errorf("the events about run %d are %q", run, got)
	}
}
