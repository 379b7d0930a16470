package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/engine"
)

var errHung = errors.New("the runtime does not answer")

// failing makes a step of the engine fail as often as left says, and counts it.
func failing(e *fakeEngine, step string, left int64) (count *atomic.Int64) {
	count = new(atomic.Int64)
	e.fail = func(s string, _ *engine.Spec) error {
		if s == step && count.Add(1) <= left {
			return errHung
		}
		return nil
	}
	return count
}

// killNode orders the end of all runs, and leaves them open at the server: only
// the node can end them there.
func (s *station) killNode() {
	s.t.Helper()
	if err := s.user.KillNode(s.ctx, s.node); err != nil {
		s.t.Fatal(err)
	}
}

func TestAKillIsRepeatedUntilTheRuntimeConfirmsIt(t *testing.T) {
	e := newFakeEngine(until(nil))
	s := newStation(t, e, "")
	n := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	stops := failing(e, "stop", 3)
	s.killNode()
	s.eventually("a second try", func() bool { return stops.Load() >= 2 })
	if rec, _ := s.srv.Run(run); rec.FinishedAt != nil {
		t.Errorf("the server was told %q while the algorithm runs", rec.Status)
	}
	s.ends(task, standin.StatusKilled)
	if rec, _ := s.srv.Run(run); rec.Log == nil || !strings.Contains(*rec.Log, "at the server's request; its algorithm was stopped after ") || !strings.Contains(*rec.Log, "exit code 143") {
		t.Errorf("the server is not told what was stopped: %v", rec.Log)
	}
	s.clean(n)
	if left := e.left(); left != 0 {
		t.Errorf("%d things are left", left)
	}
}

func TestAKillThatTheRuntimeDidNotConfirmIsRepeatedByTheNextStart(t *testing.T) {
	e := newFakeEngine(until(nil))
	s := newStation(t, e, "")
	first := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	stops := failing(e, "stop", 1<<40)
	s.killNode()
	s.eventually("a try", func() bool { return stops.Load() >= 1 })
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	if rec, _ := s.srv.Run(run); rec.FinishedAt != nil {
		t.Fatalf("the server was told %q while the algorithm runs", rec.Status)
	}
	again := failing(e, "stop", 2)
	second := s.start()
	s.ends(task, standin.StatusKilled)
	if again.Load() < 3 {
		t.Errorf("the next start asked %d times", again.Load())
	}
	s.clean(second)
}

func TestATimeoutIsReportedWhenTheRuntimeHasConfirmedTheEnd(t *testing.T) {
	e := newFakeEngine(until(nil))
	s := newStation(t, e, "limits: {timeout: 1s}\n")
	stops := failing(e, "stop", 2)
	n := s.start()
	task := s.task(nil)
	s.ends(task, standin.StatusCrashed)
	if stops.Load() < 3 {
		t.Errorf("it was reported after %d tries", stops.Load())
	}
	s.clean(n)
}

func TestWhatCannotBeRemovedIsRemovedLater(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, "")
	const failures = 6
	removes := failing(e, "remove", failures)
	n := s.start()
	task := s.task(nil)
	s.ends(task, standin.StatusCompleted)
	s.clean(n)
	if removes.Load() <= failures {
		t.Errorf("%d tries", removes.Load())
	}
}

// subtask makes a task in the name of a run's algorithm.
func (s *station) subtask(parent int64) (task int64) {
	s.t.Helper()
	s.engine.mu.Lock()
	var token []byte
	for _, r := range s.engine.runs {
		if r.spec.RunID == parent {
			b, err := os.ReadFile(r.file("token"))
			if err != nil {
				s.t.Error(err)
			}
			token = b
		}
	}
	s.engine.mu.Unlock()
	body, err := json.Marshal(map[string]any{
		"name": "subtask", "image": testImage, "collaboration_id": s.collab, "databases": []any{},
		"organizations": []any{map[string]any{"id": s.org, "input": "eyJtZXRob2QiOiJlY2hvIn0="}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.srv.URL()+"/task", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		ID  int64  `json:"id"`
		Msg string `json:"msg"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusCreated {
		s.t.Fatalf("the subtask was answered %d %q (%v)", resp.StatusCode, answer.Msg, err)
	}
	return answer.ID
}

// The server ends a task and its children, and leaves what these have made.
func TestAKilledRunsSubtasksEndWithIt(t *testing.T) {
	e := newFakeEngine(until(nil))
	s := newStation(t, e, "")
	n := s.start()
	other := s.task(nil)
	s.waitActive(other)
	task := s.task(nil)
	child := s.subtask(s.waitActive(task))
	childRun := s.waitActive(child)
	grandchild := s.subtask(childRun)
	s.waitActive(grandchild)
	// One more, of which the node learns only after the kill.
	hidden := s.srv.Fault(standin.Fault{Method: http.MethodGet, Path: "/run", Who: s.node, Status: http.StatusServiceUnavailable})
	late := s.subtask(childRun)
	if err := s.user.Kill(s.ctx, task); err != nil {
		t.Fatal(err)
	}
	s.ends(grandchild, standin.StatusKilled)
	hidden.Remove()
	s.ends(late, standin.StatusKilled)
	lateRun := s.srv.RunsOf(late)[0]
	if e.startsOf(lateRun.ID) != 0 || lateRun.Log == nil || !strings.Contains(*lateRun.Log, string(killedWithParent)+"; its algorithm had not been started") {
		t.Errorf("the late subtask was started %d times: %v", e.startsOf(lateRun.ID), lateRun.Log)
	}
	if r := s.srv.RunsOf(other)[0]; r.FinishedAt != nil {
		t.Errorf("another task's run ended as %q", r.Status)
	}
	s.killNode()
	s.ends(other, standin.StatusKilled)
	s.clean(n)
}

func TestAnAdministratorKillsARunWithItsSubtasks(t *testing.T) {
	e := newFakeEngine(until(nil))
	s := newStation(t, e, "")
	n := s.start()
	task, other := s.task(nil), s.task(nil)
	s.waitActive(other)
	run := s.waitActive(task)
	child := s.subtask(run)
	s.waitActive(child)
	if err := n.view().Kill(s.ctx, run); err != nil {
		t.Fatal(err)
	}
	s.ends(task, standin.StatusKilled)
	s.ends(child, standin.StatusKilled)
	if r := s.srv.RunsOf(other)[0]; r.FinishedAt != nil {
		t.Errorf("another task's run ended as %q", r.Status)
	}
	s.killNode()
	s.ends(other, standin.StatusKilled)
	s.clean(n)
}

func TestAKilledTaskIsForgottenWhenManyWereKilledSince(t *testing.T) {
	d := doomed{by: make(map[int64]int64)}
	for task := int64(1); task <= 3*maxDoomed; task++ {
		d.add(task, anyOrganization)
		d.add(task, anyOrganization)
	}
	if len(d.by) != maxDoomed || len(d.order) != maxDoomed {
		t.Errorf("%d tasks are kept in mind, in an order of %d", len(d.by), len(d.order))
	}
}

// A server that was restored from a backup offers what was delivered long ago.
func TestARunThatTheServerHasLostIsToldAgainAndNotExecuted(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, "")
	n := s.start()
	task := s.task(nil)
	run := s.srv.RunsOf(task)[0].ID
	s.ends(task, standin.StatusCompleted)
	s.clean(n)
	s.srv.ReopenRun(run)
	s.ends(task, standin.StatusFailed)
	s.clean(n)
	rec, _ := s.srv.Run(run)
	if e.startsOf(run) != 1 || rec.Log == nil || !strings.Contains(*rec.Log, "which the server does not have any more: send the task again") {
		t.Errorf("it was started %d times, and its log is %v", e.startsOf(run), rec.Log)
	}
}

func TestARunWhoseResultIsInTheBlobStoreIsToldAgainWithIt(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, "")
	s.srv.SetBlobStore(true)
	n := s.start()
	task := s.task(nil)
	run := s.srv.RunsOf(task)[0].ID
	want := s.result(task)
	s.clean(n)
	s.srv.ReopenRun(run)
	got := s.result(task)
	s.clean(n)
	if blobs, err := s.srv.Blobs(); err != nil || len(blobs) != 2 || e.startsOf(run) != 1 {
		t.Errorf("%d blobs, started %d times, %v", len(blobs), e.startsOf(run), err)
	}
	if got.Status != standin.StatusCompleted || string(got.Data) != string(want.Data) || !strings.Contains(got.Log, "its log, which the server does not have any more") {
		t.Errorf("%s, %q: %s", got.Status, got.Data, got.Log)
	}
}
