package server

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/internal/socketio"
)

func TestEventsReachTheHandler(t *testing.T) {
	f := newFake(t).start()
	h := listen(t, f.connected(nil))
	h.next(Synced)
	s := f.nextSocket()
	if l, _ := f.count(); l != 1 {
		t.Errorf("%d logins", l)
	}
	f.emit(s, "message", "Node joined room collaboration_1")
	f.emit(s, "node-online", map[string]any{"id": 7, "name": "beta", "org_id": 3})
	f.emit(s, "algorithm_log", map[string]any{"run_id": 1, "task_id": 1, "log": "x"})
	f.emit(s, "new_task", map[string]any{"id": 1, "parent_id": nil})
	if e := h.next(NewTask); e.TaskID != 1 || e.ParentID != 0 {
		t.Errorf("got %+v", e)
	}
	f.emit(s, "new_task", map[string]any{"id": 2, "parent_id": 1})
	if e := h.next(NewTask); e.TaskID != 2 || e.ParentID != 1 {
		t.Errorf("got %+v", e)
	}
	f.emit(s, "status_update", map[string]any{"run_id": 9})
	if e := h.next(RunChanged); e.RunID != 9 || e.TaskID != 0 {
		t.Errorf("got %+v", e)
	}
	f.emit(s, "algorithm_status_change", map[string]any{"status": "completed", "run_id": 9, "task_id": "4", "job_id": 4, "collaboration_id": 1, "node_id": 7, "organization_id": 3, "parent_id": "None"})
	want := Event{Kind: RunChanged, Status: StatusCompleted, RunID: 9, TaskID: 4, JobID: 4, CollaborationID: 1, NodeID: 7, OrganizationID: 3}
	if e := h.next(RunChanged); e != want {
		t.Errorf("got %+v", e)
	}
	f.emit(s, "new_task", "nonsense")
	f.emit(s, "new_task")
	f.emit(s, "sync")
	h.next(Synced) // nonsense has done no harm
}

func TestAKillConcernsOnlyWhatItNames(t *testing.T) {
	self := &Identity{NodeID: 6, OrganizationID: 2, CollaborationID: 1}
	tests := []struct {
		name, arg string
		want      *KillOrder
	}{
		{"ours", `{"kill_list":[{"task_id":3,"run_id":5,"organization_id":2},{"task_id":3,"run_id":6,"organization_id":3}],"collaboration_id":1}`, &KillOrder{Runs: []KillRun{{5, 3}}, Tasks: []int64{3}}},
		{"others' only", `{"kill_list":[{"task_id":3,"run_id":6,"organization_id":3}],"collaboration_id":1}`, &KillOrder{Tasks: []int64{3}}},
		{"empty list", `{"kill_list":[],"collaboration_id":1}`, nil},
		{"null list", `{"kill_list":null,"collaboration_id":1}`, nil},
		{"empty list to this node", `{"kill_list":[],"node_id":6,"collaboration_id":1}`, nil},
		{"no list", `{"node_id":6,"collaboration_id":1}`, &KillOrder{All: true}},
		{"no list, no node", `{"collaboration_id":1}`, &KillOrder{All: true}},
		{"another node", `{"node_id":7,"collaboration_id":1}`, nil},
		{"another collaboration", `{"node_id":6,"collaboration_id":2}`, nil},
		{"another collaboration's list", `{"kill_list":[{"task_id":3,"run_id":5,"organization_id":2}],"collaboration_id":2}`, nil},
		{"no collaboration", `{"node_id":6}`, nil},
		{"neither run nor task", `{"kill_list":[{"organization_id":2}],"collaboration_id":1}`, nil},
	}
	for _, tt := range tests {
		e, err := decodeEvent(socketio.Event{Name: "kill_containers", Args: raws(tt.arg)}, self)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if (e == nil) != (tt.want == nil) {
			t.Errorf("%s: got %+v", tt.name, e)
			continue
		}
		if e != nil && (e.Kind != Kill || e.Kill.All != tt.want.All || !slices.Equal(e.Kill.Runs, tt.want.Runs) || !slices.Equal(e.Kill.Tasks, tt.want.Tasks)) {
			t.Errorf("%s: got %+v", tt.name, e.Kill)
		}
	}
	for _, bad := range []string{`"x"`, `[]`, `{"collaboration_id":1,"kill_list":{}}`, `{"collaboration_id":1,"kill_list":[{"run_id":[]}]}`} {
		if e, err := decodeEvent(socketio.Event{Name: "kill_containers", Args: raws(bad)}, self); err == nil {
			t.Errorf("%s: got %+v", bad, e)
		}
	}
}

func TestASocketThatNeverGreetsMeansABadToken(t *testing.T) {
	f := newFake(t).start()
	f.onJoin = func(s *socket) {
		if s.n == 1 {
			f.emit(s, "message", "not a greeting")
			return
		}
		f.emit(s, "sync")
	}
	v := f.connected(func(c *Config) { c.Timing.Sync = 50 * time.Millisecond })
	h := listen(t, v)
	h.next(Synced)
	a, b := f.nextSocket(), f.nextSocket()
	if a.token == b.token {
		t.Error("the silent token is used again")
	}
	if l, r := f.count(); l != 2 || r != 0 {
		t.Errorf("%d logins, %d refreshs: a silent socket needs the API key", l, r)
	}
}

func TestAnExpiredTokenIsReplacedAndTheSocketComesBack(t *testing.T) {
	for _, event := range []string{"expired_token", "invalid_token"} {
		for _, when := range []string{"instead of sync", "later"} {
			t.Run(event+" "+when, func(t *testing.T) {
				f := newFake(t).start()
				f.onJoin = func(s *socket) {
					if s.n != 1 || when == "later" {
						f.emit(s, "sync")
					}
					if s.n == 1 {
						f.emit(s, event)
					}
				}
				h := listen(t, f.connected(nil))
				if when == "later" {
					h.next(Synced)
					h.next(Disconnected)
				}
				h.next(Synced)
				a, b := f.nextSocket(), f.nextSocket()
				if a.token == b.token {
					t.Error("the refused token is used again")
				}
			})
		}
	}
}

func TestAReconnectCarriesAFreshToken(t *testing.T) {
	f := newFake(t).start()
	v := f.node(nil)
	c := &clock{t: time.Now()}
	v.now = c.now
	h := listen(t, v)
	h.next(Synced)
	a := f.nextSocket()
	c.add(7 * time.Hour) // a long outage: the token has expired in the meantime
	a.Drop()
	h.next(Disconnected)
	h.next(Synced)
	b := f.nextSocket()
	if a.token == b.token {
		t.Error("the expired token is used again")
	}
	b.Drop()
	h.next(Disconnected)
	h.next(Synced)
	if again := f.nextSocket(); again.token != b.token {
		t.Error("a good token is thrown away at every reconnect")
	}
}

func TestTheSocketComesBackWhateverHappens(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	h := listen(t, v)
	h.next(Synced)
	for range 3 {
		f.nextSocket().Drop()
		h.next(Disconnected)
		h.next(Synced)
	}
	s := f.nextSocket()
	s.Close()
	h.next(Disconnected)
	h.next(Synced)
}

func TestAServerThatRefusesTheSocketIsTriedAgain(t *testing.T) {
	f := newFake(t)
	refusals := []int{503, 401, 302}
	inner := http.Handler(f)
	f.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/socket.io/" && len(refusals) > 0 {
			code := refusals[0]
			refusals = refusals[1:]
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
			return
		}
		inner.ServeHTTP(w, r)
	})
	f.start()
	h := listen(t, f.connected(nil))
	h.next(Synced)
	if l, _ := f.count(); l != 2 {
		t.Errorf("%d logins: the 401 needs a new token, the others do not", l)
	}
}

func TestAKeyThatIsRevokedAndRestoredIsUsedOn(t *testing.T) {
	f := newFake(t).start()
	h := listen(t, f.connected(nil))
	h.next(Synced)
	s := f.nextSocket()
	f.mu.Lock()
	f.keyGone = true
	f.mu.Unlock()
	f.on("POST /token/refresh", msg(401, "Token has expired"))
	f.emit(s, "expired_token")
	h.next(Disconnected)
	ctx := within(t)
	for logins, _ := f.count(); logins < 4; logins, _ = f.count() {
		select {
		case <-ctx.Done():
			t.Fatal("the node does not try to log in again")
		case err := <-h.done:
			h.done <- err
			t.Fatalf("Listen ended with %v", err)
		case <-time.After(time.Millisecond): // nobody tells of a refused login
		}
	}
	f.mu.Lock()
	f.keyGone = false
	f.mu.Unlock()
	h.next(Synced)
}

func TestListenConnectsByItselfOnceTheServerIsThere(t *testing.T) {
	f := newFake(t).start()
	away := 2
	f.on("POST /token/node", func(w http.ResponseWriter, r *http.Request) {
		if away > 0 {
			away--
			msg(502, "")(w, r)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.tokens(w)
	})
	v := f.node(nil)
	h := listen(t, v)
	h.next(Synced)
	if _, err := v.OpenRuns(within(t), 0); errors.Is(err, ErrNotConnected) {
		t.Error("connected, but the identity is unknown")
	}
}

func TestTheOpenRunsAreToBeListedWhetherOrNotTheSocketIsUp(t *testing.T) {
	f := newFake(t)
	f.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	f.start()
	v := f.node(func(c *Config) { c.PollInterval = 5 * time.Millisecond })
	h := listen(t, v)
	for range 3 {
		h.next(Poll)
	}
}

func TestListenEndsWithItsContextAndLeavesNothingRunning(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	ctx, cancel := context.WithCancel(t.Context())
	synced := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- v.Listen(ctx, func(context.Context, Event) { close(synced) })
	}()
	<-synced
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	<-f.nextSocket().Done()
	// A goroutine that has announced its end may still be on its way out.
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		left := ownGoroutines()
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there:\n%s", left)
		}
	}
}

// ownGoroutines returns the stacks of this package's and socketio's goroutines, tests aside.
func ownGoroutines() string {
	buf := make([]byte, 1<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		stack, _, _ := strings.Cut(g, "created by")
		if strings.Contains(stack, "server.(*V4)") || strings.Contains(stack, "server.(*listener)") || strings.Contains(stack, "socketio.(*Conn)") {
			return g
		}
	}
	return ""
}

func TestAnnouncementsHaveTheRecordedForm(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	h := listen(t, v)
	h.next(Synced)
	s := f.nextSocket()
	v.EmitNodeInfo(map[string]any{"encryption": false, "database_labels": []string{"default"}})
	v.EmitStatus(StatusChange{RunID: 5, TaskID: 3, Status: StatusActive})
	v.EmitLog(LogChunk{RunID: 5, TaskID: 3, Log: "line\n"})
	v.EmitStatus(StatusChange{RunID: 5, TaskID: 3, ParentID: 2, Status: StatusNoImage})
	for _, want := range []struct{ name, arg string }{
		{"node_info_update", `{"database_labels":["default"],"encryption":false}`},
		{"algorithm_status_change", `{"collaboration_id":1,"node_id":6,"organization_id":2,"parent_id":null,"run_id":5,"status":"active","task_id":3}`},
		{"algorithm_log", `{"collaboration_id":1,"log":"line\n","run_id":5,"task_id":3}`},
		{"algorithm_status_change", `{"collaboration_id":1,"node_id":6,"organization_id":2,"parent_id":2,"run_id":5,"status":"non-existing Docker image","task_id":3}`},
	} {
		if name, arg := s.receive(t); name != want.name || arg != want.arg {
			t.Errorf("got %s %s, want %s %s", name, arg, want.name, want.arg)
		}
	}
}

func TestWhatWasAnnouncedWhileTheSocketWasDownIsSentLater(t *testing.T) {
	f := newFake(t).start()
	v := f.connected(nil)
	v.EmitNodeInfo(map[string]any{"n": 1})
	v.EmitStatus(StatusChange{RunID: 1, Status: StatusActive})
	v.EmitLog(LogChunk{RunID: 1, Log: "a"})
	v.EmitNodeInfo(map[string]any{"n": 2})
	h := listen(t, v)
	h.next(Synced)
	s := f.nextSocket()
	var names []string
	for range 3 {
		name, arg := s.receive(t)
		names = append(names, name)
		if name == "node_info_update" && arg != `{"n":2}` {
			t.Errorf("an old node info is sent: %s", arg)
		}
	}
	if got := strings.Join(names, " "); got != "algorithm_status_change algorithm_log node_info_update" {
		t.Errorf("got %s", got)
	}
}

func TestTheDelayGrowsIsRandomAndStartsAnew(t *testing.T) {
	b := backoff{least: time.Second, most: 30 * time.Second}
	for i, whole := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		whole *= time.Second
		if d := b.next(); d < whole/2 || d > whole {
			t.Errorf("delay %d is %s", i, d)
		}
	}
	for range 100 {
		b.next()
	}
	b.reset()
	if d := b.next(); d > time.Second {
		t.Errorf("after a stable connection: %s", d)
	}
	seen := map[time.Duration]bool{}
	for range 20 {
		b.reset()
		seen[b.next()] = true
	}
	if len(seen) < 2 {
		t.Error("the delay is not random")
	}
}

func TestABusyServersWishIsHonouredByTheEventSocketToo(t *testing.T) {
	const wish = time.Second // the least that the header can say; the delays of a reconnect are far below
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		f := newFake(t).start()
		refused := make(chan time.Time, 100)
		f.on("socket", func(w http.ResponseWriter, _ *http.Request) {
			f.on("socket", nil)
			refused <- time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(code)
		})
		h := listen(t, f.connected(nil))
		h.next(Synced)
		if waited := time.Since(<-refused); waited < wish {
			t.Errorf("%d: connected again after %s", code, waited)
		}
	}
}

func TestWhatAServerCanAskTheEventSocketToWaitIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-3": 0, "soon": 0, "99999999": maxRetryAfter, "Sun, 22 Nov 2026 03:00:30 GMT": 30 * time.Second, "Sun, 22 Nov 2099 03:00:30 GMT": maxRetryAfter,
	} {
		err := unreachable(t.Context(), "server", &socketio.HandshakeError{Status: 503, Header: http.Header{"Retry-After": {value}}})
		if got := askedToWait(err, now); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
	if got := askedToWait(&StatusError{Code: 503, RetryAfter: 7 * time.Second}, now); got != 7*time.Second {
		t.Errorf("of a login that was refused: %s", got)
	}
	if got := askedToWait(errSilent, now); got != 0 {
		t.Errorf("of no answer: %s", got)
	}
}
