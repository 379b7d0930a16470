//go:build integration

package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

func proxyScenarios() []scenario {
	return []scenario{
		{"the token of another run is refused", foreignToken},
		{"what the server refuses reaches the algorithm unchanged", refusalsPass},
		{"one request for a status is held until the task is over", heldStatus},
		{"the wait of a central part costs the server a few requests", fewRequests},
	}
}

// answer is what the test algorithm's http returns.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Error  string
}

// token is the container token that a run was given.
func (n *node) token(t *testing.T, run int64) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.runDir(run), "data", "token"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// direct asks the server without any node between.
func (w *world) direct(t *testing.T, method, path, token string, body any) (*http.Response, string) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(within(t), method, w.server.URL()+path, bytes.NewReader(data))
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
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// subtask creates a task with the gate's token, as its algorithm could.
func (g *gate) subtask(t *testing.T, method string, args kwargs) int64 {
	t.Helper()
	input, err := json.Marshal(map[string]any{"method": method, "kwargs": args})
	if err != nil {
		t.Fatal(err)
	}
	resp, text := g.n.w.direct(t, http.MethodPost, "/task", g.n.token(t, g.run), map[string]any{
		"name": "subtask", "image": g.n.w.testalgo.Tag, "collaboration_id": g.n.collab, "databases": []any{},
		"organizations": []any{map[string]any{"id": g.n.org, "input": base64.StdEncoding.EncodeToString(input)}},
	})
	var task struct{ ID int64 }
	if err := json.Unmarshal([]byte(text), &task); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("the server answered %d: %s", resp.StatusCode, text)
	}
	return task.ID
}

func foreignToken(t *testing.T, w *world) {
	alpha := w.alpha(t)
	other := alpha.hold(t)
	foreign := alpha.token(t, other.run)
	if resp, text := w.direct(t, http.MethodGet, "/organization", foreign, nil); resp.StatusCode != http.StatusOK {
		t.Fatalf("the server does not take the other run's token: %d %s", resp.StatusCode, text)
	}
	for token, want := range map[string]int{foreign: http.StatusForbidden, "nonsense": http.StatusForbidden, "": http.StatusOK} {
		got := completed[answer](t, alpha.call(t, "http", kwargs{"path": "/organization", "token": token}))
		if got.Status != want {
			t.Errorf("with token %.8q...: %d %s, wanted %d", token, got.Status, got.Body, want)
		}
	}
	other.release(t)
	completed[gated](t, alpha.finish(t, other.task))
}

func refusalsPass(t *testing.T, w *world) {
	alpha := w.alpha(t)
	holder := alpha.hold(t) // its token is as good as any for asking directly
	token := alpha.token(t, holder.run)
	for _, ask := range []struct{ method, path, body string }{
		{"GET", "/task/999999", ""},
		{"GET", "/organization/999999", ""},
		{"GET", "/task/999999/status", ""},
		{"POST", "/task", `{"image": "other:1", "collaboration_id": 999999, "organizations": [{"id": 1, "input": "e30="}]}`},
	} {
		direct, text := w.direct(t, ask.method, ask.path, token, json.RawMessage(orNull(ask.body)))
		got := completed[answer](t, alpha.call(t, "http", kwargs{
			"method": ask.method, "path": ask.path, "body": ask.body, "header": http.Header{"Content-Type": {"application/json"}},
		}))
		if direct.StatusCode/100 != 4 {
			t.Errorf("%s %s is no refusal: %d", ask.method, ask.path, direct.StatusCode)
		}
		if got.Status != direct.StatusCode || got.Body != text || got.Header.Get("Content-Type") != direct.Header.Get("Content-Type") {
			t.Errorf("%s %s: through the proxy %d %q, directly %d %q", ask.method, ask.path, got.Status, got.Body, direct.StatusCode, text)
		}
	}
	holder.release(t)
	completed[gated](t, alpha.finish(t, holder.task))
}

func orNull(body string) string {
	if body == "" {
		return "null"
	}
	return body
}

// statusRequests matches what a node asks the server about a task's status.
func statusRequests(n *node, task int64) func(standin.Request) bool {
	path := fmt.Sprintf("/task/%d/status", task)
	return func(r standin.Request) bool { return r.Who == n.ID() && r.Path == path && r.Status == http.StatusOK }
}

// heldStatus shows that the proxy holds one single request of an algorithm from
// before a task's end until after it.
func heldStatus(t *testing.T, w *world) {
	alpha, beta := w.alphaBeta(t)
	long := beta.hold(t)
	asked, run := alpha.post(t, "http", kwargs{"path": fmt.Sprintf("/task/%d/status", long.task)})
	match := statusRequests(alpha, long.task)
	if err := w.server.WaitRequests(within(t), 1, match); err != nil {
		t.Fatal(err)
	}
	if r, _ := w.server.Run(run); r.FinishedAt != nil {
		t.Fatalf("the request was answered while the task went on: %q", *r.Result)
	}
	long.release(t)
	got := completed[answer](t, alpha.finish(t, asked))
	if got.Status != http.StatusOK || !strings.Contains(got.Body, standin.StatusCompleted) {
		t.Errorf("the held request was answered with %d %s", got.Status, got.Body)
	}
	completed[gated](t, beta.finish(t, long.task))
	if n := len(w.server.Requests(match)); n > manyQuestions {
		t.Errorf("the proxy asked the server %d times for one status", n)
	}
}

// manyQuestions is more than what one held request may cost the server: the
// proxy asks at once after each event that names the task, then with growing
// pauses, and three runs have six events.
const manyQuestions = 40

// fewRequests counts what the waits of a central algorithm cost.
func fewRequests(t *testing.T, w *world) {
	first := w.trio(t)[0]
	task, run := first.post(t, "central", kwargs{"column": "age", "rounds": 3}, image(w.average.Tag), databases("default"))
	done := first.finish(t, task)
	got := completed[struct {
		Rounds int `json:"rounds"`
	}](t, done)
	children := w.server.Children(task)
	if got.Rounds != 3 || len(children) != 3 {
		t.Fatalf("%d rounds, %d subtasks", got.Rounds, len(children))
	}
	for _, child := range children {
		if n := len(w.server.Requests(statusRequests(first, child))); n < 1 || n > manyQuestions {
			t.Errorf("run %d: the node asked %d times for the status of subtask %d", run, n, child)
		}
	}
}
