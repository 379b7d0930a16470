package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/ledger"
)

// undelivered are the entries on record about results that are not delivered.
func (s *station) undelivered() []audit.Entry {
	s.t.Helper()
	var out []audit.Entry
	for _, e := range s.onRecord() {
		if e.Event == audit.Undelivered {
			out = append(out, e)
		}
	}
	return out
}

// givenUp checks that a run was closed because the server no longer had it, and that this is told.
func (s *station) givenUp(n *running, run int64, says string) {
	s.t.Helper()
	s.eventually("a closed record", func() bool {
		n.node.work.all() // sooner than the node would look by itself
		rec, err := n.node.ledger.Get(run)
		return err == nil && rec.State == ledger.Done
	})
	s.clean(n)
	rec, err := n.node.ledger.Get(run)
	if err != nil || rec.State != ledger.Done || rec.Reason != string(ReasonGone) || rec.Status != "" || rec.HasOutput || !rec.DeliveredAt.IsZero() || !strings.Contains(rec.Message, says) {
		s.t.Errorf("record %+v, %v", rec, err)
	}
	var told []string
	if err := n.view().Events(s.ctx, admin.EventOptions{}, func(e *admin.Event) error {
		if e.Type == admin.EventUndelivered && e.Run == run {
			told = append(told, e.Message)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	if len(told) != 1 || told[0] != rec.Message {
		s.t.Errorf("events %q", told)
	}
	if got := s.undelivered(); len(got) != 1 || got[0].Run != run || got[0].Reason != rec.Message || got[0].Outcome != string(ReasonGone) {
		s.t.Errorf("on record %+v", got)
	}
}

// delivering waits until a run's outcome waits for the server.
func (s *station) delivering(n *running, run int64) {
	s.t.Helper()
	s.eventually("a delivery", func() bool {
		rec, err := n.node.ledger.Get(run)
		return err == nil && rec.State == ledger.Exited
	})
}

func TestARunThatTheServerNoLongerHasIsGivenUpInEachPhase(t *testing.T) {
	for name, c := range map[string]struct {
		yaml    string
		prepare func(*station, *running)
		reach   func(*station, *running, int64)
		says    string
	}{
		"queued": {
			prepare: func(s *station, n *running) {
				if err := n.view().Pause(s.ctx); err != nil {
					s.t.Fatal(err)
				}
			},
			reach: func(s *station, n *running, _ int64) { s.queue(n, 1) },
			says:  "had not been started",
		},
		"waiting for approval": {
			yaml:  askAdministrator,
			reach: func(s *station, n *running, task int64) { s.held(n, task) },
			says:  "had not been started",
		},
		"being prepared": {
			prepare: func(s *station, _ *running) { s.engine.opened = make(chan int64) },
			reach: func(s *station, _ *running, _ int64) {
				<-s.engine.opened
				// It is asked for meanwhile, and a server without the task refuses it.
				token := func(r standin.Request) bool { return r.Path == "/token/container" }
				if err := s.srv.WaitRequests(s.ctx, 1, token); err != nil {
					s.t.Fatal(err)
				}
			},
			says: "had not been started",
		},
		"running": {
			reach: func(s *station, _ *running, task int64) { s.waitActive(task) },
			says:  "its algorithm was stopped after ",
		},
		"delivering": {
			prepare: func(s *station, _ *running) {
				s.engine.algorithm = echo
				s.srv.Fault(standin.Fault{Method: http.MethodPatch, Path: "/run/*", Skip: 2, Times: 1 << 20, Status: http.StatusBadGateway})
			},
			reach: func(s *station, n *running, task int64) { s.delivering(n, s.srv.RunsOf(task)[0].ID) },
			says:  `it had ended as "completed"`,
		},
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarted %t", name, restarted), func(t *testing.T) {
				t.Parallel()
				e := newFakeEngine(until(nil))
				s := newStation(t, e, c.yaml)
				n := s.start()
				if c.prepare != nil {
					c.prepare(s, n)
				}
				task := s.task(nil)
				run := s.srv.RunsOf(task)[0].ID
				c.reach(s, n, task)
				if restarted {
					if err := n.end(); err != nil {
						t.Fatal(err)
					}
					e.opened = nil
				}
				s.srv.ForgetTask(task)
				if restarted {
					n = s.start()
				}
				s.givenUp(n, run, c.says)
			})
		}
	}
}

func TestADeletedTaskEndsItsRunAndItsSubtasks(t *testing.T) {
	e := newFakeEngine(until(nil))
	s := newStation(t, e, "")
	n := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	sub := s.waitActive(s.subtask(run))
	if err := s.user.DeleteTask(s.ctx, task); err != nil {
		t.Fatal(err)
	}
	s.clean(n)
	for _, id := range []int64{run, sub} {
		if rec, err := n.node.ledger.Get(id); err != nil || rec.Reason != string(ReasonGone) || !strings.Contains(rec.Message, `"killed"`) {
			t.Errorf("run %d: %+v, %v", id, rec, err)
		}
	}
	if got := s.undelivered(); len(got) != 2 {
		t.Errorf("on record %+v", got)
	}
}

// Nothing but the server's own word, said twice and by a server that knows this node, costs a result.
func TestAResultOutlivesWhatLooksLikeADeletedRun(t *testing.T) {
	const (
		get, patch, list, self = "GET /run/*", "PATCH /run/*", "GET /run", "GET /node/*"
		none                   = `{"data": [], "links": {"first": "x", "self": "x", "last": "x"}}`
		page                   = "<html>404 Not Found</html>"
		gateway                = `{"msg": "no route matches /api/run"}`
		framework              = `{"message": "The requested URL was not found on the server."}`
		own                    = "own"
	)
	for name, c := range map[string]struct {
		bodies map[string]string
		times  int // of what the server says to GET
	}{
		"a web server's page":              {bodies: map[string]string{get: page, patch: page}},
		"a gateway's JSON":                 {bodies: map[string]string{get: gateway, patch: gateway}},
		"a framework's JSON":               {bodies: map[string]string{get: framework, patch: framework}},
		"denied only when it is delivered": {bodies: map[string]string{patch: own}},
		"denied at one look":               {bodies: map[string]string{get: own, patch: own}, times: 1},
		"a server that does not know us":   {bodies: map[string]string{get: own, patch: own, self: `{"msg": "Node id=6 is not found"}`}},
		"a gateway that is our server's":   {bodies: map[string]string{get: own, patch: own, self: page}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := make(chan struct{})
			s := newStation(t, newFakeEngine(until(open)), "")
			n := s.start()
			task := s.task(map[string]any{"x": 1})
			run := s.waitActive(task)
			var faults []*standin.Injected
			for at, body := range c.bodies {
				f := standin.Fault{Who: s.node, Status: http.StatusNotFound, Body: strings.ReplaceAll(body, own, fmt.Sprintf(`{"msg": "Run id=%d not found!"}`, run))}
				f.Method, f.Path, _ = strings.Cut(at, " ")
				if at == get {
					f.Times = c.times
				}
				faults = append(faults, s.srv.Fault(f))
			}
			close(open)
			s.delivering(n, run)
			lists := s.srv.Fault(standin.Fault{Method: http.MethodGet, Path: "/run", Who: s.node, Status: http.StatusOK, Body: none})
			if err := lists.Wait(s.ctx, 4); err != nil {
				t.Fatal(err)
			}
			for _, f := range append(faults, lists) {
				if f.Remove(); f.Hits() == 0 {
					t.Error("a fault was never met")
				}
			}
			if r := s.result(task); r.Status != standin.StatusCompleted || !strings.Contains(string(r.Data), `"x"`) {
				t.Errorf("%s: %s, %s", r.Status, r.Log, r.Data)
			}
			s.clean(n)
			if got := s.undelivered(); len(got) != 0 {
				t.Errorf("on record %+v", got)
			}
		})
	}
}

func TestARunThatComesBackAfterItWasGivenUpIsNotExecutedAgain(t *testing.T) {
	e := newFakeEngine(until(nil))
	s := newStation(t, e, "")
	n := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	restore := s.srv.ForgetTask(task)
	s.givenUp(n, run, "its algorithm was stopped after ")
	restore()
	if r := s.result(task); r.Status != standin.StatusFailed || !strings.Contains(r.Log, "gave this run up") {
		t.Errorf("%s: %s", r.Status, r.Log)
	}
	s.clean(n)
	if e.startsOf(run) != 1 {
		t.Errorf("it was started %d times", e.startsOf(run))
	}
}
