package node

import (
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/policy"
)

const askAdministrator = "policies: {rules: [{approve: manual}]}\n"

// held waits until a task's run waits for approval, and returns it as the administrator sees it.
func (s *station) held(n *running, task int64) *admin.Run {
	s.t.Helper()
	id := s.srv.RunsOf(task)[0].ID
	var found *admin.Run
	s.eventually("a run that waits for approval", func() bool {
		found = nil
		err := n.view().Runs(s.ctx, admin.RunQuery{}, func(r *admin.Run) error {
			if r.ID == id && r.State == admin.Held {
				found = r
			}
			return nil
		})
		return err == nil && found != nil
	})
	if found == nil {
		s.t.FailNow()
	}
	return found
}

func TestARunWaitsForApprovalAlsoOverARestart(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, askAdministrator)
	n := s.start()
	task := s.task(nil)
	r := s.held(n, task)
	if w := r.Approval; w == nil || w.Answer != "" || w.Pinned != testImage || w.Function != "echo" || !strings.Contains(w.Reason, "rule 1 of policies.rules") {
		t.Errorf("approval %+v", r.Approval)
	}
	q, err := n.view().Queue(s.ctx)
	if err != nil || len(q) != 1 || q[0].Run != r.ID || q[0].Position != 0 || !strings.Contains(q[0].Reason, "v6node approve") {
		t.Errorf("queue %+v, %v", q, err)
	}
	if i, err := n.view().Info(s.ctx); err != nil || i.Runs.Held != 1 || i.Runs.Queued != 0 {
		t.Errorf("info %+v, %v", i, err)
	}
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	n = s.start()
	if again := s.held(n, task); !again.Approval.AskedAt.Equal(r.Approval.AskedAt) {
		t.Errorf("asked at %v, and after the restart at %v", r.Approval.AskedAt, again.Approval.AskedAt)
	}
	if e.startsOf(r.ID) != 0 {
		t.Error("it was started without approval")
	}
	if err := n.view().Approve(s.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if got := s.result(task); got.Status != standin.StatusCompleted {
		t.Errorf("%s: %s", got.Status, got.Log)
	}
	s.clean(n)
	if err := n.view().Approve(s.ctx, r.ID); !errors.Is(err, admin.ErrState) {
		t.Errorf("approved again: %v", err)
	}
	if err := n.view().Deny(s.ctx, 4711, ""); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("an unknown run: %v", err)
	}
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	got := s.onRecord()
	if e := events(got); !strings.HasSuffix(e, "approved decided started ended delivered node-stopped") {
		t.Fatalf("on record is %s", e)
	}
	for _, e := range got {
		if e.Event == audit.Approved && (e.Run != r.ID || e.Actor == "" || e.Pinned != testImage || e.Function != "echo" || !strings.Contains(e.Reason, "rule 1")) {
			t.Errorf("approved: %+v", e)
		}
		if e.Event == audit.Decided && (!*e.Allowed || !strings.Contains(e.Reason, "Approved by ")) {
			t.Errorf("decided: %+v", e)
		}
	}
}

func TestAnApprovalIsNotForAnotherFunctionThatTheServerHandsOutLater(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, askAdministrator)
	s.srv.SetBlobStore(true)
	n := s.start()
	task := s.task(nil)
	r := s.held(n, task)
	if err := n.view().Pause(s.ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.view().Approve(s.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	blobs, err := s.srv.Blobs()
	if err != nil || len(blobs) != 1 {
		t.Fatal(blobs, err)
	}
	other := base64.StdEncoding.EncodeToString([]byte(`{"method":"other"}`))
	if err := os.WriteFile(s.srv.BlobFile(blobs[0]), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	n = s.start()
	if err := n.view().Resume(s.ctx); err != nil {
		t.Fatal(err)
	}
	if again := s.held(n, task); again.Approval.Function != "other" || e.startsOf(r.ID) != 0 {
		t.Errorf("held as %+v, started %d times", again.Approval, e.startsOf(r.ID))
	}
	if err := n.view().Approve(s.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if got := s.result(task); got.Status != standin.StatusCompleted {
		t.Errorf("%s: %s", got.Status, got.Log)
	}
	s.clean(n)
}

func TestADeniedRunTellsItsSenderWhy(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, askAdministrator)
	n := s.start()
	task := s.task(nil)
	r := s.held(n, task)
	if err := n.view().Deny(s.ctx, r.ID, "ask the data committee"); err != nil {
		t.Fatal(err)
	}
	got := s.result(task)
	if got.Status != standin.StatusNotAllowed || !strings.Contains(got.Log, "has denied this run: ask the data committee") || e.startsOf(r.ID) != 0 {
		t.Errorf("%s: %s", got.Status, got.Log)
	}
	s.clean(n)
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	if e := events(s.onRecord()); e != "node-started denied decided ended delivered node-stopped" {
		t.Errorf("on record is %s", e)
	}
}

func TestARunThatWaitsForApprovalCanBeKilled(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), askAdministrator)
	n := s.start()
	here, there := s.task(nil), s.task(nil)
	run := s.held(n, here)
	s.held(n, there)
	if err := n.view().Kill(s.ctx, run.ID); err != nil {
		t.Fatal(err)
	}
	s.ends(here, standin.StatusKilled)
	if err := s.user.Kill(s.ctx, there); err != nil {
		t.Fatal(err)
	}
	s.clean(n)
	if st := s.srv.RunsOf(there)[0].Status; st != standin.StatusKilled {
		t.Errorf("status %s", st)
	}
}

func TestARunThatWaitsForApprovalTakesNobodysRoom(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), oneAtATime+"policies: {rules: [{functions: [echo], approve: manual}, {user: 1, approve: manual}]}\n")
	n := s.start()
	for range 4 {
		s.held(n, s.task(nil))
	}
	s.yaml = oneAtATime
	if _, err := n.node.Reload(s.ctx, "test"); err != nil {
		t.Fatal(err)
	}
	s.clean(n) // none waits for a rule that is no more
}

func TestNothingBeginsOnAWordThatCannotBePutOnRecord(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, askAdministrator)
	n := s.start()
	r := s.held(n, s.task(nil))
	if err := n.node.audit.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.view().Approve(s.ctx, r.ID); err == nil || !strings.Contains(err.Error(), "put on record") {
		t.Errorf("approved: %v", err)
	}
	if rec, err := n.node.ledger.Get(r.ID); err != nil || !waitsForApproval(rec) {
		t.Errorf("%+v, %v", rec, err)
	}
	if err := n.end(); err == nil {
		t.Error("the log was closed, and nothing is said")
	}
}

func TestAnApprovalIsAboutOneImage(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), askAdministrator)
	n := s.start()
	task := s.task(nil)
	r := s.held(n, task)
	// As if the reference had meant another image when the administrator looked.
	if _, err := n.node.ledger.Update(r.ID, func(l *ledger.Record) error {
		l.Approval.Pinned = strings.ReplaceAll(testImage, "1111", "2222")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := n.view().Approve(s.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	s.eventually("a question about the new image", func() bool {
		rec, err := n.node.ledger.Get(r.ID)
		return err == nil && waitsForApproval(rec) && rec.Approval.Pinned == testImage
	})
	if err := n.view().Approve(s.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	s.ends(task, standin.StatusCompleted)
	s.clean(n)
}

func TestWhatIsToBeginNeedsAnApprovalThatNewPoliciesWant(t *testing.T) {
	gate := make(chan struct{})
	e := newFakeEngine(until(gate))
	s := newStation(t, e, oneAtATime)
	n := s.start()
	first := s.task(nil)
	s.waitActive(first)
	second := s.task(nil)
	s.queue(n, 1)
	s.yaml = oneAtATime + askAdministrator
	if _, err := n.node.Reload(s.ctx, "test"); err != nil {
		t.Fatal(err)
	}
	close(gate)
	s.ends(first, standin.StatusCompleted) // it was begun before
	r := s.held(n, second)
	if e.startsOf(r.ID) != 0 {
		t.Error("it was started without approval")
	}
	if err := n.view().Approve(s.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	s.ends(second, standin.StatusCompleted)
	s.clean(n)
}

func TestRulesAboutDatabasesFunctionsAndStores(t *testing.T) {
	e := newFakeEngine(echo)
	s := newStation(t, e, "databases: [{label: open, uri: /dev, type: folder}, {label: closed, uri: /dev, type: folder}]\n"+
		"policies: {allowed_algorithm_stores: [https://store.example.org/api], rules: [{databases: open, functions: [echo]}]}\n")
	n := s.start()
	good, bad := s.srv.AddStore("good", "https://store.example.org"), s.srv.AddStore("bad", "https://evil.example.org")
	for name, c := range map[string]struct {
		store            int64
		method, database string
		status, says     string
	}{
		"what is allowed":  {good, "echo", "open", standin.StatusCompleted, ""},
		"another database": {good, "echo", "closed", standin.StatusNotAllowed, `does not give this run the database "closed"`},
		"another function": {good, "dump", "open", standin.StatusNotAllowed, `call the function "dump"`},
		"another store":    {bad, "echo", "open", standin.StatusNotAllowed, "https://evil.example.org"},
		"no store":         {0, "echo", "open", standin.StatusNotAllowed, "comes from none"},
	} {
		task, err := s.user.CreateTask(s.ctx, standin.TaskSpec{
			Name: name, Image: testImage, Collaboration: s.collab, Organizations: []int64{s.org}, Method: c.method, Store: c.store,
			Databases: []standin.DatabaseSpec{{Label: c.database}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.result(task); got.Status != c.status || !strings.Contains(got.Log, c.says) {
			t.Errorf("%s: %s: %s", name, got.Status, got.Log)
		}
	}
	s.clean(n)
}

func TestADecisionWithoutApprovalBeginsNothing(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	manual, resolved := policy.Decision{Allowed: true, Manual: true}, mustResolve(t, n)
	if _, err := n.node.approved(4711, resolved, manual); err == nil {
		t.Error("a run that is not known was approved")
	}
	for i, w := range []*ledger.Approval{
		nil,
		{Pinned: resolved.Pinned},
		{Pinned: resolved.Pinned, Answer: ledger.Denied},
		{Pinned: "registry.invalid/other@" + resolved.Digest, Answer: ledger.Approved},
		{Pinned: resolved.Pinned, File: resolved.Digest, Answer: ledger.Approved},
		{Pinned: resolved.Pinned, Answer: ledger.Approved},
	} {
		id := int64(100 + i)
		if err := n.node.ledger.Insert(&ledger.Record{RunID: id, State: ledger.Received, Approval: w}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.node.approved(id, resolved, manual); (err == nil) != (i == 5) || err != nil && !errors.Is(err, errUnapproved) {
			t.Errorf("%+v: %v", w, err)
		}
	}
}

func TestSignaturesThatCannotBeLookedAtRefuse(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	allowed := policy.Decision{Allowed: true}
	sifs := image.Resolved{Reference: "sif:algo", Pinned: "sif:algo@sha256:" + strings.Repeat("1", 64)}
	if d, err := n.node.signed(s.ctx, sifs, &image.SigningKeys{}, allowed); err != nil || d.Allowed || !strings.Contains(d.Reason, "sif.require_signature") {
		t.Errorf("a SIF image without its own check: %+v, %v", d, err)
	}
	n.node.cfg.SIF.RequireSignature = true
	if d, err := n.node.signed(s.ctx, sifs, &image.SigningKeys{}, allowed); err != nil || !d.Allowed {
		t.Errorf("a SIF image with its own check: %+v, %v", d, err)
	}
	n.node.resolver = image.Schemes{}
	if d, err := n.node.signed(s.ctx, image.Resolved{Reference: testImage, Pinned: testImage, Digest: testImage[strings.Index(testImage, "@")+1:]}, &image.SigningKeys{}, allowed); err == nil || d.Allowed {
		t.Errorf("an image of no source: %+v, %v", d, err)
	}
	n.node.resolver = fakeSource{}
	if d, err := n.node.signed(s.ctx, image.Resolved{Pinned: testImage}, &image.SigningKeys{}, allowed); err == nil || d.Allowed {
		t.Errorf("a source that knows no signatures: %+v, %v", d, err)
	}
	before := n.node.settings.Load()
	s.yaml = "policies: {signatures: {keys: /nowhere/cosign.pub}}\n"
	if _, err := n.node.Reload(s.ctx, "test"); !errors.Is(err, admin.ErrInvalid) || !strings.Contains(err.Error(), "/nowhere/cosign.pub") || n.node.settings.Load() != before {
		t.Errorf("a key that is not there: %v", err)
	}
}

// fakeSource knows nothing.
type fakeSource struct{ image.Source }
