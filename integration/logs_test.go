//go:build integration

package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

func logScenarios() []scenario {
	return []scenario{
		{"log and status are told while the algorithm runs", toldWhileRunning},
		{"a log that is not shared stays on the machine", logWithheld},
	}
}

// told matches an event that a node sent about a run.
func told(name string, run int64, check func(map[string]any) bool) func(standin.NodeEvent) bool {
	return func(e standin.NodeEvent) bool {
		var args map[string]any
		if e.Name != name || len(e.Args) == 0 || json.Unmarshal(e.Args[0], &args) != nil {
			return false
		}
		id, _ := args["run_id"].(float64)
		return int64(id) == run && check(args)
	}
}

func toldWhileRunning(t *testing.T, w *world) {
	alpha := w.alpha(t)
	g := alpha.hold(t)
	status := func(want string) func(standin.NodeEvent) bool {
		return told("algorithm_status_change", g.run, func(a map[string]any) bool { return a["status"] == want })
	}
	if _, err := w.server.WaitNodeEvent(within(t), told("algorithm_log", g.run, func(a map[string]any) bool {
		text, _ := a["log"].(string)
		return strings.Contains(text, "waiting at the gate")
	})); err != nil {
		t.Errorf("the log was not sent: %v", err)
	}
	if _, err := w.server.WaitNodeEvent(within(t), status(standin.StatusActive)); err != nil {
		t.Errorf("the start was not announced: %v", err)
	}
	if r, _ := w.server.Run(g.run); r.FinishedAt != nil {
		t.Fatalf("the run is over as %q", r.Status)
	}
	g.release(t)
	done := alpha.finish(t, g.task)
	completed[gated](t, done)
	if _, err := w.server.WaitNodeEvent(within(t), status(standin.StatusCompleted)); err != nil {
		t.Errorf("the end was not announced: %v", err)
	}
	// With CRI-O, what runc has to say is in the log too (docs/userns.md).
	if done.Text != "waiting at the gate\n" && (w.kind != crioKind || !strings.HasSuffix(done.Text, "\nwaiting at the gate\n")) {
		t.Errorf("the final log is %q", done.Text)
	}
}

func logWithheld(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"share_algorithm_logs": false}})
	const words = "line 0 "
	done := n.call(t, "spam", kwargs{"lines": 50})
	if completed[map[string]int](t, done)["lines"] != 50 {
		t.Errorf("result %s", done.Data)
	}
	if strings.Contains(done.Text, words) || !strings.Contains(done.Text, "does not share") {
		t.Errorf("the log is %q", done.Text)
	}
	failed := n.call(t, "exit", kwargs{"code": 3})
	if failed.Status != standin.StatusCrashed || strings.Contains(failed.Text, "leaving with") || !strings.Contains(failed.Text, "exit code 3") {
		t.Errorf("a failed run: %q, log %q", failed.Status, failed.Text)
	}
	if events := w.server.NodeEvents(func(e standin.NodeEvent) bool { return e.Name == "algorithm_log" && e.NodeID == n.ID() }); len(events) != 0 {
		t.Errorf("the node sent %d pieces of logs", len(events))
	}
}
