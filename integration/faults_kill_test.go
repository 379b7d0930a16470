//go:build integration

package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/integration/standin"
)

// TestKillsThatMeetFaults: a kill holds until the runtime has confirmed it.
func TestKillsThatMeetFaults(t *testing.T) {
	onRuntime(t, embeddedKind, []scenario{
		{"the runtime hangs and the node dies", killThatOnlyTheLedgerKnows},
		{"the runtime dies", killWithoutRuntime},
		{"a killed run has made subtasks that have made subtasks", killFamily},
	})
}

// signalRuntime sends a signal to the node's own containerd.
func (n *node) signalRuntime(t *testing.T, s unix.Signal) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.StateDir, "containerd-state", "containerd.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ PID int }
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(commandLine(r.PID), n.StateDir) {
		t.Fatalf("process %d is not the node's containerd: %s", r.PID, commandLine(r.PID))
	}
	if err := unix.Kill(r.PID, s); err != nil {
		t.Fatal(err)
	}
}

// killNode orders the end of all runs of the node, which stay open at the server
// until the node reports them.
func (n *node) killNode(t *testing.T) {
	t.Helper()
	if err := n.researcher.KillNode(within(t), n.ID()); err != nil {
		t.Fatal(err)
	}
}

// stopped checks that a run was killed, by the node alone, and what it says of it.
func (n *node) stopped(t *testing.T, run int64, says ...string) {
	t.Helper()
	if _, err := n.w.server.WaitRun(within(t), run, standin.StatusKilled); err != nil {
		t.Fatal(err)
	}
	r := n.killed(t, run, true)
	if r.Log == nil {
		t.Fatalf("run %d has no log", run)
	}
	for _, s := range says {
		if !strings.Contains(*r.Log, s) {
			t.Errorf("run %d does not say %q: %s", run, s, *r.Log)
		}
	}
	n.onceDelivered(t, run)
	n.noTraces(t, run)
}

func killThatOnlyTheLedgerKnows(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	n.signalRuntime(t, unix.SIGSTOP)
	going := false
	defer func() {
		if !going {
			n.signalRuntime(t, unix.SIGCONT)
		}
	}()
	n.killNode(t)
	n.says(t, "killing a run")
	n.Kill()
	if r, _ := w.server.Run(g.run); r.FinishedAt != nil {
		t.Errorf("the server was told %q before the algorithm was stopped", r.Status)
	}
	n.signalRuntime(t, unix.SIGCONT)
	going = true
	n.restart(t)
	n.stopped(t, g.run, "at the server's request; its algorithm was stopped after ", "exit code ")
	completed[any](t, n.call(t, "noop", nil))
}

func killWithoutRuntime(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	n.signalRuntime(t, unix.SIGKILL)
	n.killNode(t)
	n.stopped(t, g.run, "at the server's request; its algorithm was stopped")
	completed[any](t, n.call(t, "noop", nil))
	n.lives(t)
}

// killFamily: the server ends a task and its children, and nobody else what these
// have made.
func killFamily(t *testing.T, w *world) {
	n := w.eager(t)
	parent, other := n.hold(t), n.hold(t)
	child := n.subtask(t, parent.run)
	grandchild := n.subtask(t, child)
	n.kill(t, parent.task)
	n.killed(t, parent.run, true)
	n.killed(t, child, true)
	n.stopped(t, grandchild, "because the run that made its task was; its algorithm was stopped after ")
	other.undisturbed(t)
}

// subtask makes a task in the name of a run's algorithm and waits until it runs.
func (n *node) subtask(t *testing.T, parent int64) (run int64) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(n.runDir(parent), "token"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{
		"name": t.Name(), "image": n.w.testalgo.Tag, "collaboration_id": n.collab, "databases": []any{},
		"organizations": []any{map[string]any{"id": n.org, "input": base64.StdEncoding.EncodeToString([]byte(`{"method":"gate"}`))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		ID int64 `json:"id"`
	}
	if err := json.Unmarshal(n.w.ask(t, http.MethodPost, "/task", string(token), body), &answer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.w.tellTask(t, answer.ID) })
	run = n.w.server.RunsOf(answer.ID)[0].ID
	n.active(t, run)
	return run
}

// ask makes a request at the server, past all nodes, and returns the answer.
func (w *world) ask(t *testing.T, method, path, token string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), method, w.server.URL()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil || resp.StatusCode > 299 {
		t.Fatal(fmt.Errorf("the server answered %s to %s %s: %s (%w)", resp.Status, method, path, answer.String(), err))
	}
	return answer.Bytes()
}
