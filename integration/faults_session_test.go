//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
)

// TestFaultsOfTheSession: what the server itself, or a gateway before it, answers
// wrongly costs no result and no restart.
func TestFaultsOfTheSession(t *testing.T) {
	onRuntime(t, embeddedKind, []scenario{
		{"a key that is revoked and restored", revokedKey},
		{"pages of a gateway", gatewayPages},
		{"503 with a date in Retry-After", retryAfterDate},
		{"a Retry-After that makes no sense", retryAfterNonsense},
		{"a result that the server refuses", refusedResult},
		{"a run that the server has lost", lostRun},
	})
}

// TestFaultsOfTheSessionOfAllNodes are those that no node can be spared.
func TestFaultsOfTheSessionOfAllNodes(t *testing.T) {
	w := newWorld(t, embeddedKind)
	for _, s := range []scenario{
		{"a socket that connects and is never greeted", silentSocket},
		{"a server whose clock is ten years ahead", skewedClock(10 * 365 * 24 * time.Hour)},
		{"a server whose clock is ten years behind", skewedClock(-10 * 365 * 24 * time.Hour)},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(t, w) })
	}
}

// eager makes a node that looks for runs every second.
func (w *world) eager(t *testing.T) *node {
	t.Helper()
	return w.start(t, nodeOptions{Extra: map[string]any{"poll_interval": "1s"}})
}

// executedOnce checks a gate that has ended well.
func (n *node) executedOnce(t *testing.T, g *gate) {
	t.Helper()
	if got := completed[gated](t, n.well(t, g.task)); got.Executed != 1 {
		t.Errorf("the algorithm was executed %d times", got.Executed)
	}
	n.lives(t)
}

func revokedKey(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	w.server.RevokeKey(n.ID())
	w.server.ExpireTokens(n.ID(), true)
	w.server.CloseSockets(n.ID())
	g.release(t)
	n.says(t, "the server does not recognize the API key any more")
	n.says(t, "the result could not be delivered, trying again")
	w.server.RestoreKey(n.ID())
	n.executedOnce(t, g)
	if err := w.server.WaitNode(within(t), n.ID(), true); err != nil {
		t.Error(err)
	}
}

// gatewayPages: while an API is away, what stands before it says many things.
func gatewayPages(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	var faults []*standin.Injected
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden, http.StatusUnauthorized, http.StatusOK} {
		times := 1
		if status == http.StatusUnauthorized {
			times = 2 // the first is taken for the token's
		}
		faults = append(faults, w.server.Fault(standin.Fault{
			Method: http.MethodPatch, Path: fmt.Sprintf("/run/%d", g.run), Times: times, Status: status,
			Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>we will be back soon</html>",
		}))
	}
	g.release(t)
	n.executedOnce(t, g)
	for _, f := range faults {
		if f.Remove(); f.Hits() == 0 {
			t.Error("a page was never met")
		}
	}
}

func retryAfterDate(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	// The server's clock is a year behind, and its answer says so. HTTP's dates have
	// whole seconds.
	sent := time.Now().AddDate(-1, 0, 0).UTC().Truncate(time.Second)
	const pause = 3 * time.Second
	busy := w.server.Fault(standin.Fault{
		Method: http.MethodPatch, Path: fmt.Sprintf("/run/%d", g.run), Times: 1, Status: http.StatusServiceUnavailable,
		Header: http.Header{"Date": {sent.Format(http.TimeFormat)}, "Retry-After": {sent.Add(pause).Format(http.TimeFormat)}},
	})
	g.release(t)
	n.executedOnce(t, g)
	if busy.Remove(); busy.Hits() != 1 {
		t.Errorf("the fault was met %d times", busy.Hits())
	}
	if waited := n.betweenDeliveries(g.run); waited < pause {
		t.Errorf("the node waited %v and was asked for %v", waited, pause)
	}
}

func retryAfterNonsense(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	for _, value := range []string{"-86400", "soon", "99999999999999999999", time.Now().AddDate(-20, 0, 0).UTC().Format(http.TimeFormat)} {
		w.server.Fault(standin.Fault{
			Method: http.MethodPatch, Path: fmt.Sprintf("/run/%d", g.run), Times: 1, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {value}},
		})
	}
	g.release(t)
	n.executedOnce(t, g)
}

// betweenDeliveries is the time between the last two reports of a run.
func (n *node) betweenDeliveries(run int64) time.Duration {
	path := fmt.Sprintf("/run/%d", run)
	var last, before time.Time
	for _, r := range n.w.server.Requests(func(r standin.Request) bool { return r.Method == http.MethodPatch && r.Path == path }) {
		before, last = last, r.At
	}
	return last.Sub(before)
}

// refusedResult: a 400 that does not say that the run is finished is about the
// result.
func refusedResult(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	refused := w.server.Fault(standin.Fault{
		Method: http.MethodPatch, Path: fmt.Sprintf("/run/%d", g.run), Times: 1, Status: http.StatusBadRequest,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: `{"msg":"Request body is incorrect"}`,
	})
	g.release(t)
	done := n.finish(t, g.task)
	refused.Remove()
	n.failed(t, done, standin.StatusFailed, "the result cannot be delivered", "Request body is incorrect")
	n.lives(t)
}

// lostRun: a server that was restored from a backup offers what it had acknowledged.
func lostRun(t *testing.T, w *world) {
	n := w.eager(t)
	task, run := n.post(t, "count", nil)
	n.well(t, task)
	w.server.ReopenRun(run)
	done := n.finish(t, task)
	if done.Status != standin.StatusFailed {
		t.Errorf("it ended as %q", done.Status)
	}
	oneSentence(t, done.sentence(t), "the server does not have any more", "send the task again")
	n.goesOn(t, run)
	n.lives(t)
}

func silentSocket(t *testing.T, w *world) {
	n := w.eager(t)
	g := n.hold(t)
	w.server.SilentSockets(true)
	w.server.CloseSockets(n.ID())
	n.offline(t)
	later, _ := n.post(t, "count", nil)
	g.release(t)
	n.executedOnce(t, g)
	if got := completed[struct{ Count int }](t, n.well(t, later)); got.Count != 1 {
		t.Errorf("the next algorithm was executed %d times", got.Count)
	}
	w.server.SilentSockets(false)
	if err := w.server.WaitNode(within(t), n.ID(), true); err != nil {
		t.Error(err)
	}
}

// skewedClock: how long a token lives does not depend on this machine's clock, and
// it is renewed where the server says so.
func skewedClock(ahead time.Duration) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		w.server.SkewClock(ahead)
		defer w.server.SkewClock(0)
		n := w.eager(t) // logs in by that clock
		g := n.hold(t)
		if at := n.renewals(); at != 0 {
			t.Errorf("the node has renewed a new token %d times", at)
		}
		w.server.ExpireTokens(n.ID(), false)
		w.server.CloseSockets(n.ID())
		g.release(t)
		n.executedOnce(t, g)
	}
}

// renewals counts how often the node's token was renewed.
func (n *node) renewals() int {
	return len(n.w.server.Requests(func(r standin.Request) bool {
		return r.Method == http.MethodPost && r.Path == "/token/refresh" && r.Who == n.ID()
	}))
}
