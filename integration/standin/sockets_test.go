package standin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/v6node/v6node/internal/socketio"
)

func TestANodeHearsSyncFirstAndThenItsRooms(t *testing.T) {
	sc := newScene(t, false, Options{})
	c := sc.dial(sc.nodeA.token)
	var names, texts []string
	for range 3 {
		e, err := c.Read(within(t))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name)
		if len(e.Args) > 0 {
			var text string
			if err := json.Unmarshal(e.Args[0], &text); err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
	}
	if names[0] != "sync" || names[1] != "message" || names[2] != "message" {
		t.Errorf("events %q", names)
	}
	if texts[0] != "Node <study - alpha Node> joined room <collaboration_21>" {
		t.Errorf("messages %q", texts)
	}
}

func TestABadTokenIsConnectedAndNeverSynced(t *testing.T) {
	sc := newScene(t, false, Options{})
	forged := sc.nodeA.token[:len(sc.nodeA.token)-4] + "AAAA"
	sc.s.ExpireTokens(sc.idB, false)
	for _, c := range []struct {
		what, token string
		want        []string
	}{
		{"expired", sc.nodeB.token, []string{"expired_token"}},
		{"forged", forged, []string{"invalid_token"}},
		{"absent", "", nil},
		{"garbage", "garbage", nil},
	} {
		conn := sc.dial(c.token)
		good := sc.dial(sc.nodeA.token)
		next(t, good, "message")
		next(t, good, "message")
		sc.task(sc.a)
		next(t, good, "new_task")
		for _, want := range c.want {
			next(t, conn, want)
		}
		sc.s.CloseSockets(0)
		if more := rest(t, conn); len(more) > 0 {
			t.Errorf("%s: more events: %q", c.what, more)
		}
	}
}

func TestANewTaskIsToldToTheWholeCollaboration(t *testing.T) {
	sc := newScene(t, false, Options{})
	c := sc.dial(sc.nodeB.token)
	next(t, c, "message")
	next(t, c, "message")
	id, _ := sc.task(sc.a)
	e := next(t, c, "new_task")
	if parent, there := e["parent_id"]; e["id"].(float64) != float64(id) || !there || parent != nil {
		t.Errorf("event %v", e)
	}
}

func TestNodeOnlineIsHeardOncePerSharedRoom(t *testing.T) {
	sc := newScene(t, false, Options{})
	a := sc.dial(sc.nodeA.token)
	next(t, a, "message")
	next(t, a, "message")
	b := sc.dial(sc.nodeB.token)
	for range 2 {
		if e := next(t, a, "node-online"); e["id"].(float64) != float64(sc.idB) || e["org_id"].(float64) != float64(sc.b) {
			t.Errorf("event %v", e)
		}
	}
	if err := sc.s.WaitNode(within(t), sc.idB, true); err != nil {
		t.Fatal(err)
	}
	b.Close()
	next(t, a, "node-offline")
	next(t, a, "node-offline")
	if sc.s.NodeOnline(sc.idB) {
		t.Error("the node is online without a socket")
	}
}

func TestStatusAndLogEventsAreEchoedToAllIncludingTheSender(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, runs := sc.task(sc.a)
	a, b := sc.dial(sc.nodeA.token), sc.dial(sc.nodeB.token)
	for _, c := range []*socketio.Conn{a, b} {
		next(t, c, "message")
		next(t, c, "message")
	}
	if err := a.Emit(t.Context(), "algorithm_status_change", object{
		"node_id": sc.idA, "status": "active", "run_id": runs[0], "task_id": id, "collaboration_id": sc.collab,
		"organization_id": sc.a, "parent_id": nil,
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*socketio.Conn{a, b} {
		if e := next(t, c, "algorithm_status_change"); e["job_id"].(float64) != firstJob || e["status"] != "active" || e["run_id"].(float64) != float64(runs[0]) {
			t.Errorf("event %v", e)
		}
	}
	for _, line := range []string{"one", "two\n"} {
		if err := a.Emit(t.Context(), "algorithm_log", object{"collaboration_id": sc.collab, "run_id": runs[0], "task_id": id, "log": line}); err != nil {
			t.Fatal(err)
		}
		next(t, a, "algorithm_log")
		next(t, b, "algorithm_log")
	}
	if r := sc.run(runs[0]); *r.Log != "one\ntwo\n" {
		t.Errorf("log %q", *r.Log)
	}
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "active"})
	if e := next(t, b, "status_update"); e["run_id"].(float64) != float64(runs[0]) {
		t.Errorf("event %v", e)
	}
	if r := sc.run(runs[0]); r.Log != nil {
		t.Error("the PATCH kept the log")
	}
}

func TestNodeInfoBecomesRowsUntilTheNodeLeaves(t *testing.T) {
	sc := newScene(t, false, Options{})
	c := sc.dial(sc.nodeA.token)
	if err := c.Emit(t.Context(), "node_info_update", object{
		"encryption": false, "database_labels": []string{"default", "other"}, "database_columns": object{"columns_default": []string{"age", "sex"}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := sc.s.WaitNodeEvent(within(t), func(e NodeEvent) bool { return e.Name == "node_info_update" }); err != nil {
		t.Fatal(err)
	}
	rows := sc.s.NodeConfig(sc.idA)
	if len(rows["database_labels"]) != 2 || rows["columns_default"][1] != "sex" || rows["encryption"][0] != "false" {
		t.Errorf("rows %v", rows)
	}
	if list := sc.nodeA.must(200, "GET", "/node/6", nil)["config"].([]any); len(list) != 5 {
		t.Errorf("config %v", list)
	}
	c.Close()
	if err := sc.s.WaitNode(within(t), sc.idA, false); err != nil {
		t.Fatal(err)
	}
	if rows := sc.s.NodeConfig(sc.idA); len(rows) != 0 {
		t.Errorf("rows after leaving %v", rows)
	}
}

func TestANodeThatDoesNotPingIsSetOfflineUntilItPings(t *testing.T) {
	sc := newScene(t, false, Options{OfflineAfter: 50 * time.Millisecond})
	c := sc.dial(sc.nodeA.token)
	next(t, c, "sync")
	if err := sc.s.WaitNode(within(t), sc.idA, false); err != nil {
		t.Fatal(err)
	}
	deadline := within(t)
	for back := false; !back; {
		if err := deadline.Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.Emit(t.Context(), "ping"); err != nil {
			t.Fatal(err)
		}
		// On a slow machine it may be offline again before anybody looks.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		back = sc.s.WaitNode(ctx, sc.idA, true) == nil
		cancel()
	}
}

func TestAFrozenSocketIsFoundDeadByItsClient(t *testing.T) {
	sc := newScene(t, false, Options{PingInterval: 50 * time.Millisecond, PingTimeout: 50 * time.Millisecond})
	c := sc.dial(sc.nodeA.token)
	next(t, c, "sync")
	sc.s.FreezeSockets(sc.idA)
	for {
		_, err := c.Read(within(t))
		if err == nil {
			continue
		}
		if !errors.Is(err, socketio.ErrPeerDead) {
			t.Errorf("the connection ended with %v", err)
		}
		break
	}
}

func TestSilentSocketsNeverSyncAndLostEventsAreNotSent(t *testing.T) {
	sc := newScene(t, false, Options{})
	sc.s.SilentSockets(true)
	quiet := sc.dial(sc.nodeA.token)
	if err := sc.s.WaitSockets(within(t), 0, 1); err != nil {
		t.Fatal(err)
	}
	sc.s.SilentSockets(false)
	c := sc.dial(sc.nodeB.token)
	next(t, c, "message")
	next(t, c, "message")
	sc.s.LoseEvents(true)
	sc.task(sc.a)
	sc.s.LoseEvents(false)
	second, _ := sc.task(sc.a)
	if e := next(t, c, "new_task"); e["id"].(float64) != float64(second) {
		t.Errorf("the lost event arrived: %v", e)
	}
	sc.s.CloseSockets(0)
	if got := rest(t, quiet); len(got) != 0 {
		t.Errorf("a silent socket heard %q", got)
	}
}

func TestAfterARestartTheAddressAndTheWorldAreTheSame(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	c := sc.dial(sc.nodeA.token)
	next(t, c, "sync")
	url := sc.s.URL()
	sc.s.Stop()
	rest(t, c)
	if _, err := sc.nodeA.send(http.MethodGet, "/node/6", nil); err == nil {
		t.Error("a stopped server answered")
	}
	if err := sc.s.Start(); err != nil {
		t.Fatal(err)
	}
	if sc.s.URL() != url {
		t.Errorf("the address was %s and is %s", url, sc.s.URL())
	}
	sc.nodeA.must(200, "GET", runPath(runs[0]), nil)
	next(t, sc.dial(sc.nodeA.token), "sync")
}
