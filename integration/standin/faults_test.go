package standin

import (
	"io"
	"net/http"
	"testing"
	"time"
)

func TestAFaultAnswersForAsManyRequestsAsToldAndThenNoMore(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	f := sc.s.Fault(Fault{Method: "PATCH", Path: "/run/*", Who: sc.idA, Skip: 1, Times: 2, Status: 429, Header: http.Header{"Retry-After": {"7"}}})
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "active"})
	sc.nodeA.must(200, "GET", runPath(runs[0]), nil)
	for range 2 {
		resp, err := sc.nodeA.send("PATCH", runPath(runs[0]), object{"status": "active"})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "7" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
	}
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "active"})
	if f.Hits() != 2 {
		t.Errorf("%d hits", f.Hits())
	}
}

func TestADroppedRequestIsProcessedOnlyWhenItIsDroppedAfterwards(t *testing.T) {
	for _, after := range []bool{false, true} {
		sc := newScene(t, false, Options{})
		_, runs := sc.task(sc.a)
		f := sc.s.Fault(Fault{Method: "PATCH", DropBefore: !after, DropAfter: after})
		if resp, err := sc.nodeA.send("PATCH", runPath(runs[0]), object{"status": "completed", "finished_at": when}); err == nil {
			resp.Body.Close()
			t.Errorf("after=%t: the request was answered with %d", after, resp.StatusCode)
		}
		f.Remove()
		if done := sc.run(runs[0]).FinishedAt != nil; done != after {
			t.Errorf("after=%t: processed=%t", after, done)
		}
		dropped := func(q Request) bool { return q.Method == "PATCH" && q.Status == 0 }
		if err := sc.s.WaitRequests(within(t), 1, dropped); err != nil {
			t.Error(err)
		}
	}
}

func TestAnAnswerCutShortIsAnErrorAndASlowOneIsWhole(t *testing.T) {
	sc := newScene(t, false, Options{})
	cut := sc.s.Fault(Fault{Path: "/node/*", DropMidBody: true})
	resp, err := sc.nodeA.send("GET", "/node/6", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("half an answer was read without an error")
	}
	resp.Body.Close()
	cut.Remove()
	sc.s.Fault(Fault{Path: "/node/*", SlowBody: 100 * time.Millisecond})
	start := time.Now()
	if a := sc.nodeA.must(200, "GET", "/node/6", nil); a["id"].(float64) != float64(sc.idA) {
		t.Errorf("answer %v", a)
	}
	if took := time.Since(start); took < 90*time.Millisecond {
		t.Errorf("the slow answer took %v", took)
	}
}

func TestADelayHoldsTheRequest(t *testing.T) {
	sc := newScene(t, false, Options{})
	f := sc.s.Fault(Fault{Path: "/version", Delay: 50 * time.Millisecond, Times: 1})
	start := time.Now()
	sc.nodeA.must(200, "GET", "/version", nil)
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if err := f.Wait(within(t), 1); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsRequestsThatAreHeld(t *testing.T) {
	sc := newScene(t, false, Options{})
	f := sc.s.Fault(Fault{Path: "/version", Delay: time.Hour})
	failed := make(chan error, 1)
	go func() {
		resp, err := sc.nodeA.send("GET", "/version", nil)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	if err := f.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	sc.s.Close()
	if err := <-failed; err == nil {
		t.Error("a held request was answered at the end")
	}
}

func TestASocketHandshakeCanFail(t *testing.T) {
	sc := newScene(t, false, Options{})
	sc.s.Fault(Fault{Path: "/socket.io/", Status: 503, Times: 1})
	resp, err := http.Get(sc.s.Host() + "/socket.io/?EIO=4&transport=websocket")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("handshake answered %d", resp.StatusCode)
	}
	next(t, sc.dial(sc.nodeA.token), "sync")
}
