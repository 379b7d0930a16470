package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

var bg = context.Background()

// events is a TaskEvents that a test drives.
type events struct {
	mu         sync.Mutex
	subs       map[chan struct{}]int64
	subscribed chan int64 // told of each subscription
	cancelled  chan int64
}

func newEvents() *events {
	return &events{subs: map[chan struct{}]int64{}, subscribed: make(chan int64, 100), cancelled: make(chan int64, 100)}
}

func (e *events) Subscribe(task int64) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	e.mu.Lock()
	e.subs[c] = task
	e.mu.Unlock()
	e.subscribed <- task
	return c, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if _, ok := e.subs[c]; ok {
			delete(e.subs, c)
			e.cancelled <- task
		}
	}
}

func (e *events) fire(task int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c, t := range e.subs {
		if t == task {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

// statusServer answers status requests with a status that the test sets, and
// tells of each question.
type statusServer struct {
	mu     sync.Mutex
	status string
	code   int
	asked  chan struct{}
}

func newStatusServer(status string) *statusServer {
	return &statusServer{status: status, code: 200, asked: make(chan struct{}, 1000)}
}

func (s *statusServer) set(status string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.code = status, code
}

func (s *statusServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answerJSON(w, s.code, map[string]any{"id": 4, "status": s.status})
	s.asked <- struct{}{}
}

func (f *fixture) ask(path string) <-chan reply {
	c := make(chan reply, 1)
	go func() { c <- f.do("GET", path, "") }()
	return c
}

// noPolling lets a held request ask the server again only after an event.
func noPolling(l *limits) { l.poll, l.soon, l.hold = time.Hour, time.Hour, time.Hour }

func TestTheStatusOfAnUnfinishedTaskIsHeldUntilItIsFinished(t *testing.T) {
	e, s := newEvents(), newStatusServer("pending")
	f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(noPolling))
	answer := f.ask("/task/4/status")
	if task := <-e.subscribed; task != 4 {
		t.Fatalf("subscribed to task %d", task)
	}
	<-s.asked
	s.set("active", 200)
	e.fire(4)
	<-s.asked // asked again, and still not finished
	select {
	case r := <-answer:
		t.Fatalf("answered before the end: %+v", r)
	default:
	}
	s.set("completed", 200)
	e.fire(5) // not this task
	e.fire(4)
	if r := <-answer; r.Status != 200 || !strings.Contains(r.Body, `"completed"`) {
		t.Fatalf("%+v", r)
	}
	if task := <-e.cancelled; task != 4 {
		t.Fatalf("cancelled %d", task)
	}
	for _, r := range f.requests() {
		if r.URI != "/api/task/4/status" || r.Auth != "Bearer "+token {
			t.Errorf("the server saw %+v", r)
		}
	}
}

func TestAFinishedTaskAndAFailureAreAnsweredAtOnce(t *testing.T) {
	for _, c := range []struct {
		status string
		code   int
	}{
		{"completed", 200}, {"failed", 200}, {"start failed", 200}, {"non-existing Docker image", 200}, {"crashed", 200},
		{"killed by user", 200}, {"not allowed", 200}, {"unknown error", 200}, {"something new", 200}, {"active", 404}, {"active", 500},
	} {
		e, s := newEvents(), newStatusServer(c.status)
		s.set(c.status, c.code)
		f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(noPolling))
		if r := f.do("GET", "/task/4/status", ""); r.Status != c.code || !strings.Contains(r.Body, c.status) {
			t.Errorf("%+v: %+v", c, r)
		}
		if n := len(f.requests()); n != 1 {
			t.Errorf("%+v: %d requests", c, n)
		}
	}
}

func TestAnEventBetweenQuestionAndAnswerIsNotMissed(t *testing.T) {
	e := newEvents()
	n := 0
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			e.fire(4) // finished just after the server looked
			answerJSON(w, 200, map[string]string{"status": "active"})
			return
		}
		answerJSON(w, 200, map[string]string{"status": "completed"})
	}, withTasks(e), withLimits(noPolling))
	if r := f.do("GET", "/task/4/status", ""); !strings.Contains(r.Body, "completed") {
		t.Fatalf("%+v", r)
	}
}

func TestTheLastAnswerIsGivenWhenTheWaitIsOver(t *testing.T) {
	e, s := newEvents(), newStatusServer("active")
	f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(func(l *limits) {
		noPolling(l)
		l.hold = 30 * time.Millisecond
	}))
	if r := f.do("GET", "/task/4/status", ""); r.Status != 200 || !strings.Contains(r.Body, "active") {
		t.Fatalf("%+v", r)
	}
	if n := len(f.requests()); n != 1 {
		t.Fatalf("%d requests", n)
	}
	<-e.cancelled
}

func TestWithoutEventsAHeldRequestStillFindsTheEnd(t *testing.T) {
	e, s := newEvents(), newStatusServer("active")
	f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(func(l *limits) { l.poll = time.Millisecond }))
	answer := f.ask("/task/4/status")
	<-s.asked
	<-s.asked
	s.set("crashed", 200)
	if r := <-answer; !strings.Contains(r.Body, "crashed") {
		t.Fatalf("%+v", r)
	}
}

func TestAnEventThatIsAheadOfTheServerIsFollowedUp(t *testing.T) {
	e, s := newEvents(), newStatusServer("active")
	f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(func(l *limits) { l.poll, l.soon, l.hold = time.Hour, time.Millisecond, time.Hour }))
	answer := f.ask("/task/4/status")
	<-s.asked
	e.fire(4)
	<-s.asked
	s.set("completed", 200) // only now
	if r := <-answer; !strings.Contains(r.Body, "completed") {
		t.Fatalf("%+v", r)
	}
}

func TestAServerInTroubleDoesNotEndTheWait(t *testing.T) {
	e, s := newEvents(), newStatusServer("active")
	f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(noPolling))
	answer := f.ask("/task/4/status")
	<-s.asked
	s.set("", 502)
	e.fire(4)
	<-s.asked
	s.set("completed", 200)
	e.fire(4)
	if r := <-answer; r.Status != 200 || !strings.Contains(r.Body, "completed") {
		t.Fatalf("%+v", r)
	}
}

func TestAHeldRequestEndsWithItsClient(t *testing.T) {
	e, s := newEvents(), newStatusServer("active")
	f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(noPolling))
	ctx, cancel := context.WithCancel(bg)
	req, err := http.NewRequestWithContext(ctx, "GET", f.proxy.URL+"/task/4/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	go func() {
		<-s.asked
		cancel()
	}()
	if resp, err := f.proxy.Client().Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("answered with status %d", resp.StatusCode)
	}
	<-e.cancelled
}

func TestOnlyTheStatusOfATaskIsHeld(t *testing.T) {
	for _, c := range []struct{ method, path string }{
		{"GET", "/task/4"}, {"GET", "/run/4"}, {"HEAD", "/task/4/status"}, {"GET", "/task/x/status"}, {"GET", "/task/-4/status"}, {"GET", "/task/4/status/x"},
	} {
		s := newStatusServer("active")
		f := newFixture(t, s.ServeHTTP, withTasks(newEvents()), withLimits(noPolling))
		if r := f.do(c.method, c.path, ""); r.Status != 200 {
			t.Errorf("%s %s: %+v", c.method, c.path, r)
		}
	}
	s := newStatusServer("active")
	f := newFixture(t, s.ServeHTTP, withLimits(noPolling)) // without events
	if r := f.do("GET", "/task/4/status", ""); r.Status != 200 {
		t.Errorf("%+v", r)
	}
}

func TestAStatusThatIsTooLongIsTheServersFault(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"status":"active","x":%q}`, strings.Repeat("x", maxStatusBody))
	}, withTasks(newEvents()))
	if r := f.do("GET", "/task/4/status", ""); r.Status != 502 {
		t.Fatalf("%+v", r)
	}
}
