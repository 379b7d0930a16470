//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

func logScenarios() []scenario {
	return []scenario{
		{"log and status are told while the algorithm runs", toldWhileRunning},
		{"a log that is not shared stays on the machine", logWithheld},
		{"a log that is not shared leaves by no way, however a run ends", logWithheldAtEveryEnd},
		{"the final log has no line twice", logOnce},
		{"secrets are in nothing that the node writes", secretsNowhere},
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
	for run, want := range map[int64]string{done.ID: "line 0 ", failed.ID: "leaving with"} {
		var err error
		eventually(t, func() error {
			var out, errOut string
			if out, errOut, err = w.v6node(t, "logs", "--state-dir", n.StateDir, strconv.FormatInt(run, 10)); err == nil && !strings.Contains(out+errOut, want) {
				return fmt.Errorf("the administrator is shown %q%q of run %d, without %q", out, errOut, run, want)
			}
			return err
		})
	}
	if events := w.server.NodeEvents(func(e standin.NodeEvent) bool { return e.Name == "algorithm_log" && e.NodeID == n.ID() }); len(events) != 0 {
		t.Errorf("the node sent %d pieces of logs", len(events))
	}
}

// logWithheldAtEveryEnd has a word printed, on both streams, by runs that end in all ways, and looks
// for it in everything that the server knows.
func logWithheldAtEveryEnd(t *testing.T, w *world) {
	slow := w.push(t, "suite/withheld-slow")
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"share_algorithm_logs": false, "stop_grace": "100ms", "limits": map[string]any{"output_size": "1m"},
		"limit_rules": []any{map[string]any{"image": strings.TrimSuffix(slow.Tag, ":latest"), "limits": map[string]any{"timeout": "1s"}}},
	}})
	const word = "diagnosis-of-patient-17"
	say := func(end string) kwargs { return kwargs{"text": word, "end": end} }
	var over []ended
	for _, end := range []string{"well", "exit", "panic", "no output", "too much"} {
		over = append(over, n.call(t, "say", say(end)))
	}
	over = append(over, n.call(t, "say", say("never"), image(slow.Tag)))
	task, run := n.post(t, "say", say("never"))
	n.active(t, run)
	n.command(t, "kill", strconv.FormatInt(run, 10))
	over = append(over, n.finish(t, task))
	want := []string{standin.StatusCompleted, standin.StatusCrashed, standin.StatusCrashed, standin.StatusCrashed, standin.StatusCrashed, standin.StatusCrashed, standin.StatusKilled}
	for i, e := range over {
		rec, err := json.Marshal(e.RunRecord)
		if err != nil {
			t.Fatal(err)
		}
		if e.Status != want[i] || strings.Contains(string(rec)+e.Text+string(e.Data), word) || !strings.HasPrefix(e.Text, "This node does not share the logs of algorithms.") {
			t.Errorf("run %d of %d: status %q, log %q, result %q", i, len(over), e.Status, e.Text, e.Data)
		}
	}
	for _, e := range w.server.NodeEvents(func(e standin.NodeEvent) bool { return e.NodeID == n.ID() }) {
		args, err := json.Marshal(e.Args)
		if err != nil {
			t.Fatal(err)
		}
		if e.Name == "algorithm_log" || strings.Contains(string(args), word) {
			t.Errorf("the node sent %s %s", e.Name, args)
		}
	}
	if strings.Contains(n.Log(1<<20), word) {
		t.Error("the node's own log has what the algorithm printed")
	}
}

// logOnce ends algorithms just when a piece of their log is on its way.
func logOnce(t *testing.T, w *world) {
	alpha := w.alpha(t)
	for i := range 8 {
		// Just over the time after which a piece is sent.
		done := alpha.call(t, "chatter", kwargs{"lines": 10, "milliseconds": 480 + 10*i})
		if got := strings.Count(done.Text, "line "); done.Status != standin.StatusCompleted || got != 10 {
			t.Errorf("%s, %d lines: %q", done.Status, got, done.Text)
		}
		rec, _ := w.server.Run(done.ID) // some time after the outcome
		if rec.Log == nil || strings.Count(*rec.Log, "line ") != 10 {
			t.Errorf("the server's log of run %d is not the final one", done.ID)
		}
	}
}
