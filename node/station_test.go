package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/runtime"
)

// view is the administrator's view of a started node.
func (r *running) view() admin.Station {
	return r.node.Station(About{Version: "test", Server: "http://server", Runtime: func() runtime.Info { return runtime.Info{Name: "fake"} }})
}

func TestRunsBeyondTheBudgetWaitInTheQueue(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "resources: {budget: {runs: 3}}\n")
	n := s.start()
	// One slot of three is kept for subtasks, so two roots run.
	first, second := s.task(nil), s.task(nil)
	s.waitActive(first)
	s.waitActive(second)
	third := s.task(nil)
	waiting := s.eventually("a queue of one", func() bool {
		q, err := n.view().Queue(s.ctx)
		return err == nil && len(q) == 1
	})
	if !waiting {
		return
	}
	q, err := n.view().Queue(s.ctx)
	if err != nil || q[0].Task != third || q[0].Position != 1 || !strings.Contains(q[0].Reason, "waiting for") {
		t.Errorf("queue %+v, %v", q, err)
	}
	info, err := n.view().Info(s.ctx)
	if err != nil || info.Runs.Running != 2 || info.Runs.Queued != 1 || info.Budget.Total.Runs != 3 {
		t.Errorf("info %+v, %v", info, err)
	}
	// The queue outlives the node.
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	n = s.start()
	s.eventually("the queue after a restart", func() bool {
		q, err := n.view().Queue(s.ctx)
		return err == nil && len(q) == 1 && q[0].Task == third
	})
	close(gate)
	for _, id := range []int64{first, second, third} {
		if r := s.result(id); r.Status != "completed" {
			t.Errorf("task %d: %s: %s", id, r.Status, r.Log)
		}
	}
	s.clean(n)
}

func TestARunThatCanNeverFitIsRefusedWithTheReason(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "limits: {memory: 4g}\nresources: {budget: {memory: 1g}}\n")
	n := s.start()
	if r := s.result(s.task(nil)); r.Status != "start failed" || !strings.Contains(r.Log, "memory") {
		t.Errorf("status %s, log %s", r.Status, r.Log)
	}
	s.clean(n)
}

func TestAPausedNodeBeginsNothingAndStaysPaused(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	if err := n.view().Pause(s.ctx); err != nil {
		t.Fatal(err)
	}
	task := s.task(nil)
	s.eventually("a queue of one", func() bool { q, err := n.view().Queue(s.ctx); return err == nil && len(q) == 1 })
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	n = s.start()
	s.eventually("a queue of one after the restart", func() bool { q, err := n.view().Queue(s.ctx); return err == nil && len(q) == 1 })
	if info, err := n.view().Info(s.ctx); err != nil || !info.Node.Paused {
		t.Errorf("info %+v, %v", info, err)
	}
	if err := n.view().Resume(s.ctx); err != nil {
		t.Fatal(err)
	}
	if r := s.result(task); r.Status != "completed" {
		t.Errorf("status %s", r.Status)
	}
	s.clean(n)
}

func TestAnAdministratorSeesAndKillsARun(t *testing.T) {
	s := newStation(t, newFakeEngine(until(nil)), "")
	n := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	v := n.view()
	var listed []*admin.Run
	if err := v.Runs(s.ctx, admin.RunQuery{}, func(r *admin.Run) error { listed = append(listed, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(listed) != 1 || listed[0].ID != run || listed[0].State != admin.Running {
		t.Errorf("listed %+v", listed)
	}
	in, err := v.Inspect(s.ctx, run)
	if err != nil || in.Sandbox == nil || in.Container == nil || in.Limits.Asked == nil || in.Limits.Asked.Pids != 2048 || in.OrganizationName != "hospital" ||
		in.Policy == nil || !in.Policy.Allowed || in.Policy.Reason == "" || len(in.Mounts) == 0 || !slices.Contains(in.EnvNames, "TOKEN_FILE") {
		t.Errorf("inspected %+v, %v", in, err)
	}
	if u, err := v.Stats(s.ctx, nil); err != nil || len(u) != 1 || u[0].Run != run || u[0].MemoryLimit == 0 {
		t.Errorf("stats %+v, %v", u, err)
	}
	memory := int64(1 << 30)
	if l, err := v.Update(s.ctx, run, admin.LimitChange{Memory: &memory}); err != nil || l.Memory != memory {
		t.Errorf("updated %+v, %v", l, err)
	}
	if _, err := v.Inspect(s.ctx, 999); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("an unknown run: %v", err)
	}
	if err := v.Kill(s.ctx, run); err != nil {
		t.Fatal(err)
	}
	r := s.result(task)
	if r.Status != "killed by user" || !strings.Contains(r.Log, "administrator of this node") {
		t.Errorf("status %s, log %s", r.Status, r.Log)
	}
	s.clean(n)
	if err := v.Kill(s.ctx, run); !errors.Is(err, admin.ErrState) {
		t.Errorf("a second kill: %v", err)
	}
	var kinds []string
	if err := v.Events(s.ctx, admin.EventOptions{}, func(e *admin.Event) error {
		if e.Run == run {
			kinds = append(kinds, string(e.Type))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(kinds, " "); got != "received queued admitted image started updated killed exited delivered removed" {
		t.Errorf("events: %s", got)
	}
}

// eventually waits for what no event of the server tells.
func (s *station) eventually(what string, ok func() bool) bool {
	s.t.Helper()
	for !ok() {
		select {
		case <-s.ctx.Done():
			s.t.Errorf("it never came to %s", what)
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

func TestTheSizeOfALivingRunsLogIsChanged(t *testing.T) {
	gate, written := make(chan struct{}), make(chan string, 1)
	s := newStation(t, newFakeEngine(func(r *fakeRun) int {
		path := filepath.Join(r.spec.LogDir, r.spec.LogName)
		line := "2026-01-01T00:00:00.000000000Z stdout F " + strings.Repeat("x", 1000) + "\n"
		if err := os.WriteFile(path, []byte(strings.Repeat(line, 4<<10)), 0o600); err != nil {
			return 9
		}
		written <- r.spec.LogDir
		return until(gate)(r)
	}), "limits: {log_size: 0}\nshare_algorithm_logs: false\n")
	n := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	dir := <-written
	small := int64(1 << 10)
	if _, err := n.view().Update(s.ctx, run, admin.LimitChange{LogSize: &small}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("a log of 1 KiB: %v", err)
	}
	size := int64(1 << 20)
	if l, err := n.view().Update(s.ctx, run, admin.LimitChange{LogSize: &size}); err != nil || l.LogSize != size {
		t.Errorf("updated %+v, %v", l, err)
	}
	s.eventually("a small log", func() bool {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var total int64
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				total += info.Size()
			}
		}
		return total <= size
	})
	close(gate)
	if r := s.result(task); r.Status != "completed" {
		t.Errorf("status %s: %s", r.Status, r.Log)
	}
	s.clean(n)
}

func TestWhatAnInspectionShowsOfARunThatHasNoContainer(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "policies:\n  allowed_algorithms: registry.invalid/other\n")
	n := s.start()
	task := s.task(nil)
	s.ends(task, "not allowed")
	s.clean(n)
	in, err := n.view().Inspect(s.ctx, s.srv.RunsOf(task)[0].ID)
	if err != nil || in.Policy == nil || in.Policy.Allowed || !strings.Contains(in.Policy.Reason, "allowed") || in.Limits.Asked != nil || in.Mounts != nil || in.EnvNames != nil {
		t.Errorf("a refused run: %+v, %v", in, err)
	}

	s = newStation(t, newFakeEngine(echo), "limits: {pids: 77}\n")
	n = s.start()
	if err := n.view().Pause(s.ctx); err != nil {
		t.Fatal(err)
	}
	task = s.task(nil)
	run := s.queue(n, 1)[0]
	in, err = n.view().Inspect(s.ctx, run)
	if err != nil || in.Policy != nil || in.Limits.Asked == nil || in.Limits.Asked.Pids != 77 || in.Sandbox != nil || in.Container != nil || in.Limits.Effective != nil || in.OrganizationName != "hospital" {
		t.Errorf("a queued run: %+v, %v", in, err)
	}
	if q, err := n.view().Queue(s.ctx); err != nil || len(q) != 1 || q[0].OrganizationName != "hospital" {
		t.Errorf("queue %+v, %v", q, err)
	}
	if err := n.view().Resume(s.ctx); err != nil {
		t.Fatal(err)
	}
	s.ends(task, "completed")
	s.clean(n)
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	n = s.start()
	s.eventually("a login", func() bool { return n.node.session.identity() != nil })
	in, err = n.view().Inspect(s.ctx, run)
	if err != nil || in.Policy == nil || !in.Policy.Allowed || in.Limits.Asked == nil || in.Limits.Asked.Pids != 77 || in.OrganizationName != "hospital" {
		t.Errorf("a run that was over before the restart: %+v, %v", in, err)
	}
}
