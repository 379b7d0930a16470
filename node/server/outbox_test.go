package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/v6node/v6node/internal/socketio"
)

func raws(arg string) []json.RawMessage { return []json.RawMessage{json.RawMessage(arg)} }

func drain(o *outbox) (out []item) {
	for {
		i, ok := o.take()
		if !ok {
			return out
		}
		out = append(out, i)
	}
}

func TestTheOldestLogsAreDroppedAndCountedStatusesAreKept(t *testing.T) {
	o := newOutbox()
	line := strings.Repeat("x", 1000)
	const n = 3 * maxLogBytes / 1000
	for i := range n {
		if i%100 == 0 {
			o.putStatus(StatusChange{RunID: int64(i)})
		}
		o.putLog(LogChunk{RunID: int64(i), Log: line})
	}
	items := drain(o)
	logs, statuses, bytes, last := 0, 0, 0, int64(0)
	for _, i := range items {
		if i.status != nil {
			statuses++
			continue
		}
		logs++
		bytes += len(i.log.Log)
		if i.log.RunID <= last {
			t.Fatalf("log %d after %d", i.log.RunID, last)
		}
		last = i.log.RunID
	}
	if statuses != (n+99)/100 || bytes > maxLogBytes || bytes < maxLogBytes-1000 || last != n-1 {
		t.Errorf("%d statuses, %d bytes of logs up to %d", statuses, bytes, last)
	}
	if lost := o.lost(); lost != n-logs || o.lost() != 0 {
		t.Errorf("%d lost, %d kept of %d", lost, logs, n)
	}
}

func TestStatusesAreBoundedToo(t *testing.T) {
	o := newOutbox()
	for i := range maxStatuses + 5 {
		o.putStatus(StatusChange{RunID: int64(i)})
	}
	if items := drain(o); len(items) != maxStatuses || items[0].status.RunID != 5 || o.lost() != 5 {
		t.Errorf("%d kept", len(items))
	}
}

func TestALongLogIsSentInPiecesOfWholeRunes(t *testing.T) {
	o := newOutbox()
	text := strings.Repeat("ü€", 60_000)
	o.putLog(LogChunk{RunID: 1, Log: text})
	got := ""
	for _, i := range drain(o) {
		if len(i.log.Log) > logPiece || !utf8.ValidString(i.log.Log) {
			t.Fatalf("a piece of %d bytes, valid %v", len(i.log.Log), utf8.ValidString(i.log.Log))
		}
		got += i.log.Log
	}
	if got != text {
		t.Error("the pieces are not the whole")
	}
	o.putLog(LogChunk{Log: strings.Repeat("\xbf", 3*logPiece)}) // no rune begins anywhere
	n := 0
	for _, i := range drain(o) {
		n += len(i.log.Log)
	}
	if n != 3*logPiece {
		t.Errorf("%d bytes", n)
	}
}

func TestWhatCouldNotBeSentStaysFirst(t *testing.T) {
	o := newOutbox()
	o.putStatus(StatusChange{RunID: 1})
	o.putLog(LogChunk{RunID: 2, Log: "l"})
	o.putLatest(nodeInfo, json.RawMessage(`{"n":1}`))
	for range 3 {
		first, _ := o.take()
		o.back(first)
		again, _ := o.take()
		if first.seq != again.seq {
			t.Errorf("%+v came back as %+v", first, again)
		}
	}
	o.putLatest(nodeInfo, json.RawMessage(`{"n":1}`))
	old, _ := o.take()
	o.putLatest(nodeInfo, json.RawMessage(`{"n":2}`))
	o.back(old)
	if i, _ := o.take(); string(i.body) != `{"n":2}` {
		t.Errorf("an old node info replaces a newer one: %s", i.body)
	}
	if rest := drain(o); len(rest) != 0 {
		t.Errorf("left: %+v", rest)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"parent_id":null}`, `{"run_id":"5","parent_id":"None"}`, `{"collaboration_id":1}`,
		`{"kill_list":[{"task_id":3,"run_id":5,"organization_id":2}],"collaboration_id":1,"node_id":6}`, `null`, `[]`, `"x"`, `{"id":1e99}`,
	} {
		f.Add(s)
	}
	self := &Identity{NodeID: 6, OrganizationID: 2, CollaborationID: 1}
	f.Fuzz(func(t *testing.T, arg string) {
		for _, name := range []string{"sync", "new_task", "status_update", "algorithm_status_change", "kill_containers"} {
			e, err := decodeEvent(socketio.Event{Name: name, Args: raws(arg)}, self)
			if err != nil || e == nil {
				continue
			}
			if (e.Kind == Kill) != (e.Kill != nil) {
				t.Fatalf("%s %s: %+v", name, arg, e)
			}
			if e.Kill != nil && (e.CollaborationID != self.CollaborationID || e.Kill.All == (len(e.Kill.Runs)+len(e.Kill.Tasks) > 0)) {
				t.Fatalf("%s: %+v", arg, e.Kill)
			}
		}
	})
}

func TestLogsOfARunWhoseWholeLogIsSentAreForgotten(t *testing.T) {
	o := newOutbox()
	for _, run := range []int64{1, 2, 1, 2} {
		o.putLog(LogChunk{RunID: run, Log: "line\n"})
	}
	sending, _ := o.take() // of run 1
	o.forgetLogs(1)
	o.back(sending)
	other, _ := o.take()
	o.back(other)
	for range 2 {
		if i, ok := o.take(); !ok || i.log.RunID != 2 {
			t.Errorf("got %+v", i)
		}
	}
	if i, ok := o.take(); ok {
		t.Errorf("got %+v", i)
	}
	if o.logBytes != 0 {
		t.Errorf("%d bytes are counted", o.logBytes)
	}
}

func TestTheOutcomeWaitsForTheEchoOfTheLogThatIsOnItsWay(t *testing.T) {
	f := newFake(t).start()
	f.on("PATCH /run/5", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":5}`) })
	v := f.connected(func(c *Config) { c.Timing.Echo = time.Hour })
	h := listen(t, v)
	h.next(Synced)
	s := f.nextSocket()
	for range 2 {
		v.EmitLog(LogChunk{RunID: 5, TaskID: 3, Log: "line\n"})
		s.receive(t)
	}
	done := make(chan error, 1)
	go func() { done <- v.Finish(within(t), 5, Final{Status: StatusCompleted}) }()
	f.emit(s, "algorithm_log", map[string]any{"run_id": 5, "task_id": 3, "log": "line\n"})
	f.emit(s, "algorithm_log", map[string]any{"run_id": 6, "task_id": 3, "log": "of another node\n"})
	f.emit(s, "new_task", map[string]any{"id": 9})
	h.next(NewTask) // so that what came before it was heard
	if n := len(f.asked("PATCH /run/5")); n != 0 {
		t.Errorf("the outcome was sent while a piece of the log was on its way")
	}
	f.emit(s, "algorithm_log", map[string]any{"run_id": 5, "task_id": 3, "log": "line\n"})
	if err := <-done; err != nil || len(f.asked("PATCH /run/5")) != 1 {
		t.Errorf("%v, %d outcomes", err, len(f.asked("PATCH /run/5")))
	}
	if len(v.out.way) != 0 {
		t.Errorf("%d runs are remembered", len(v.out.way))
	}
}

func TestAServerThatDoesNotEchoIsWaitedForOnce(t *testing.T) {
	o := newOutbox()
	sent := func(run int64) {
		o.putLog(LogChunk{RunID: run, Log: "line\n"})
		if _, ok := o.take(); !ok {
			t.Fatal("there is nothing to send")
		}
	}
	sent(1)
	o.landed(t.Context(), 1, time.Millisecond)
	sent(2)
	o.landed(t.Context(), 2, time.Hour)
	if !o.mute || len(o.way) != 0 {
		t.Errorf("mute %v, %d runs are remembered", o.mute, len(o.way))
	}
	o.echoed(7)
	sent(3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.landed(ctx, 3, time.Hour)
	if o.mute || len(o.way) != 0 {
		t.Errorf("after an echo: mute %v, %d runs are remembered", o.mute, len(o.way))
	}
	sent(4)
	o.connected()
	o.landed(t.Context(), 4, time.Hour) // of an earlier connection: nothing to wait for
}
