package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/policy"
)

// onRecord reads a station's audit log, which must be whole.
func (s *station) onRecord() []audit.Entry {
	s.t.Helper()
	dir := filepath.Join(s.dir, "state", audit.DirName)
	if _, err := audit.Verify(dir, nil); err != nil {
		s.t.Fatal(err)
	}
	var out []audit.Entry
	if err := audit.Each(dir, func(l *audit.Line) error {
		e, err := l.Entry()
		if err == nil {
			out = append(out, *e)
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// events are the names of entries, in order.
func events(entries []audit.Entry) string {
	var names []string
	for _, e := range entries {
		names = append(names, string(e.Event))
	}
	return strings.Join(names, " ")
}

func TestWhatARunWasAllowedAndSentIsOnRecord(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	r := s.result(s.task(map[string]any{"secret": "patient 7"}))
	s.clean(n)
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	got := s.onRecord()
	if e := events(got); e != "node-started decided started ended delivered node-stopped" {
		t.Fatalf("on record is %s", e)
	}
	decided, started, ended := got[1], got[2], got[3]
	if decided.Allowed == nil || !*decided.Allowed || decided.Reason == "" || decided.Organization != s.org || decided.User == 0 || decided.Image != testImage || !strings.Contains(decided.Pinned, "@sha256:") {
		t.Errorf("decided: %+v", decided)
	}
	if started.Function != "echo" || started.Pinned != decided.Pinned || started.Run != decided.Run {
		t.Errorf("started: %+v", started)
	}
	if ended.BytesOut == nil || *ended.BytesOut != int64(len(r.Data)) || ended.ExitCode == nil || *ended.ExitCode != 0 || ended.Status != standin.StatusCompleted || ended.FinishedAt.IsZero() {
		t.Errorf("ended: %+v, and %d bytes were received", ended, len(r.Data))
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "state", audit.DirName, "audit-000000000001.jsonl"))
	if err != nil || strings.Contains(string(b), "patient") {
		t.Errorf("inputs are on record (%v)", err)
	}
}

func TestARefusalIsOnRecordWithItsReason(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "policies:\n  allowed_algorithms: registry.invalid/other\n")
	n := s.start()
	s.result(s.task(nil))
	s.clean(n)
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	got := s.onRecord()
	if e := events(got); e != "node-started decided ended delivered node-stopped" {
		t.Fatalf("on record is %s", e)
	}
	if d := got[1]; d.Allowed == nil || *d.Allowed || !strings.Contains(d.Reason, "allowed") {
		t.Errorf("decided: %+v", d)
	}
	if e := got[2]; e.Status != standin.StatusNotAllowed || e.BytesOut != nil || e.ExitCode != nil {
		t.Errorf("ended: %+v", e)
	}
}

func TestNothingRunsThatCannotBePutOnRecord(t *testing.T) {
	started := false
	s := newStation(t, newFakeEngine(func(r *fakeRun) int { started = true; return echo(r) }), "")
	n := s.start()
	if err := errors.Join(s.srv.WaitNode(s.ctx, s.node, true), n.node.audit.Close()); err != nil {
		t.Fatal(err)
	}
	r := s.result(s.task(nil))
	if started || r.Status == standin.StatusCompleted || !strings.Contains(r.Log, "audit log") {
		t.Errorf("started: %v, status %s, log %s", started, r.Status, r.Log)
	}
	s.clean(n)
	if err := n.end(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the node's end is not on record, and it ends with %v", err)
	}
}

func TestAnAdministratorsCommandIsOnRecordWithTheRunItConcerns(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	if err := n.node.ledger.Insert(&ledger.Record{RunID: 9, TaskID: 8, State: ledger.Done, Image: "a/b", InitUserID: 5, FinishedAt: time.Now(), DeliveredAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	n.node.Steered(t.Context(), admin.Peer{UID: 0}, "kill", []any{"run", int64(9)}, nil)
	n.node.Steered(t.Context(), admin.Peer{UID: 4_000_000}, "pause", nil, errors.New("the disk is full"))
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	var got []audit.Entry
	for _, e := range s.onRecord() {
		if e.Event == audit.Steered {
			got = append(got, e)
		}
	}
	if len(got) != 2 || got[0].Run != 9 || got[0].Task != 8 || got[0].User != 5 || got[0].Reason != "kill" || !strings.Contains(got[0].Actor, "0") ||
		got[1].Actor != "4000000" || got[1].Reason != "pause: refused: the disk is full" {
		t.Errorf("%+v", got)
	}
}

func TestARefusalThatCannotBePutOnRecordIsARefusal(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	if err := errors.Join(s.srv.WaitNode(s.ctx, s.node, true), n.node.audit.Close()); err != nil {
		t.Fatal(err)
	}
	err := n.node.refused(&activeRun{}, &ledger.Record{RunID: 1}, "", policy.Decision{Reason: "no"})
	if o := classify(err); o.reason != ReasonPolicy {
		t.Errorf("%v is %s", err, o.reason)
	}
	if err := n.end(); err == nil {
		t.Error("the log was closed, and nothing is said")
	}
}
