package node

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/image"
)

func mustResolve(t *testing.T, n *running) image.Resolved {
	t.Helper()
	resolved, err := n.node.resolver.Resolve(t.Context(), testImage)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

func TestReloadAppliesAllOrNothing(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "")
	n := s.start()
	living := s.task(nil)
	run := s.waitActive(living)

	s.yaml = "policies: {allowed_algorithms: registry.invalid/other}\nlimits: {pids: 77, memory: lots}\nproxy_prot: 1\n"
	if c, err := n.view().Reload(s.ctx); c != nil || !errors.Is(err, admin.ErrInvalid) || strings.Count(err.Error(), "\n") > 0 ||
		!strings.Contains(err.Error(), "nothing has changed: node.yaml:8: ") || !strings.Contains(err.Error(), "and 1 more") {
		t.Errorf("an invalid file: %+v, %v", c, err)
	}
	free := s.task(nil)
	s.waitActive(free) // as before

	s.yaml = "policies: {allowed_algorithms: registry.invalid/other}\nlimits: {pids: 77}\nproxy_port: 9999\n"
	c, err := n.view().Reload(s.ctx)
	if err != nil || !slices.Equal(c.Applied, []string{"policies", "limits"}) || !slices.Equal(c.Restart, []string{"proxy_port"}) {
		t.Fatalf("%+v, %v", c, err)
	}
	s.ends(s.task(nil), standin.StatusNotAllowed, "allowed_algorithms")
	if rec, err := n.node.ledger.Get(run); err != nil || rec.Limits.Pids == 77 {
		t.Errorf("the limits of a living run changed: %+v, %v", rec.Limits, err)
	}
	close(gate)
	s.ends(living, standin.StatusCompleted)
	s.ends(free, standin.StatusCompleted)

	s.yaml = "limits: {pids: 77}\nproxy_port: 9999\n"
	if c, err = n.view().Reload(s.ctx); err != nil || !slices.Equal(c.Applied, []string{"policies"}) || !slices.Equal(c.Restart, []string{"proxy_port"}) {
		t.Fatalf("what needs a restart is not named again: %+v, %v", c, err)
	}
	again := s.task(nil)
	s.ends(again, standin.StatusCompleted)
	if rec, err := n.node.ledger.Get(s.srv.RunsOf(again)[0].ID); err != nil || rec.Limits.Pids != 77 {
		t.Errorf("a new run has %+v, %v", rec.Limits, err)
	}
	s.clean(n)
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range s.onRecord() {
		if e.Event == audit.Reloaded {
			said = append(said, e.Reason)
			if e.Actor == "" {
				t.Errorf("nobody did %+v", e)
			}
		}
	}
	if len(said) != 3 || !strings.HasPrefix(said[0], "refused: ") || said[1] != "applied: policies, limits; only a restart applies: proxy_port" {
		t.Errorf("on record is %q", said)
	}
}

func TestAConfigurationThatCannotBePutOnRecordIsNotApplied(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	if err := errors.Join(s.srv.WaitNode(s.ctx, s.node, true), n.node.audit.Close()); err != nil {
		t.Fatal(err)
	}
	before := n.node.settings.Load()
	s.yaml = "limits: {pids: 77}\n"
	if _, err := n.node.Reload(s.ctx, "test"); err == nil || n.node.settings.Load() != before {
		t.Errorf("applied: %v", err)
	}
	if err := n.end(); err == nil {
		t.Error("the log was closed, and nothing is said")
	}
}

func TestANodeWithoutAFileSaysSo(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	n.node.reload = nil
	if _, err := n.view().Reload(s.ctx); !errors.Is(err, admin.ErrInvalid) || !strings.Contains(err.Error(), "without a file") {
		t.Errorf("%v", err)
	}
}
