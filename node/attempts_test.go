package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/runtime"
)

var errHiccup = errors.New("the runtime had a hiccup")

// events are the kinds of a run's events but for its image, in their order.
func (s *station) events(n *running, run int64) string {
	s.t.Helper()
	var kinds []string
	if err := n.view().Events(s.ctx, admin.EventOptions{}, func(e *admin.Event) error {
		if e.Run == run && e.Type != admin.EventImage { // which comes beside the others
			kinds = append(kinds, string(e.Type))
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(kinds, " ")
}

func TestAStartThatFailsIsTriedAgain(t *testing.T) {
	for _, step := range []string{"open", "create", "start"} {
		t.Run(step, func(t *testing.T) {
			e := newFakeEngine(echo)
			e.fail = func(at string, s *engine.Spec) error {
				if at == step && s.Attempt < 3 {
					return errHiccup
				}
				return nil
			}
			s := newStation(t, e, "")
			n := s.start()
			got := s.ends(s.task(nil), standin.StatusCompleted)
			s.clean(n)
			if r := s.over(n); r.Attempt != 3 || e.startsOf(got.RunID) != 1 {
				t.Errorf("attempt %d, started %d times", r.Attempt, e.startsOf(got.RunID))
			}
			if got := s.events(n, got.RunID); got != "received queued admitted retried retried started exited delivered removed" {
				t.Errorf("events: %s", got)
			}
		})
	}
}

func TestAStartIsGivenUpAfterThreeTries(t *testing.T) {
	for step, reason := range map[string]error{"open": engine.ErrNetwork, "create": errHiccup} {
		t.Run(step, func(t *testing.T) {
			var tries atomic.Int64
			e := newFakeEngine(echo)
			e.fail = func(at string, _ *engine.Spec) error {
				if at != step {
					return nil
				}
				tries.Add(1)
				return reason
			}
			s := newStation(t, e, "")
			n := s.start()
			s.ends(s.task(nil), standin.StatusStartFailed, "after 3 tries: "+reason.Error())
			s.clean(n)
			if tries.Load() != 3 {
				t.Errorf("%d tries", tries.Load())
			}
		})
	}
}

func TestAStartIsNotRepeatedWhereThatIsUselessOrUnsafe(t *testing.T) {
	for name, c := range map[string]struct {
		step   string
		err    error
		starts int
	}{
		"a limit":                      {"open", engine.ErrLimit, 0},
		"a program that is missing":    {"start", engine.ErrProgram, 0},
		"an algorithm that may run":    {"started", errHiccup, 1},
		"an algorithm that may run, 2": {"started", engine.ErrNetwork, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var tries atomic.Int64
			e := newFakeEngine(untilStopped)
			e.fail = func(at string, _ *engine.Spec) error {
				if at != c.step {
					return nil
				}
				tries.Add(1)
				return c.err
			}
			s := newStation(t, e, "limits: {crash_retries: 5}\n")
			n := s.start()
			got := s.ends(s.task(nil), standin.StatusStartFailed)
			s.clean(n)
			if tries.Load() != 1 || e.startsOf(got.RunID) != c.starts || strings.Contains(got.Log, "tries") {
				t.Errorf("%d tries, started %d times: %s", tries.Load(), e.startsOf(got.RunID), got.Log)
			}
		})
	}
}

// TestAStartWhoseAnswerIsLostIsLookedUp: the runtime died or hung while it started
// the algorithm, and says afterwards what it has done.
func TestAStartWhoseAnswerIsLostIsLookedUp(t *testing.T) {
	for _, step := range []string{"start", "started"} {
		t.Run(step, func(t *testing.T) {
			var failed atomic.Bool
			e := newFakeEngine(echo)
			e.fail = func(at string, _ *engine.Spec) error {
				if at == step && failed.CompareAndSwap(false, true) {
					return &runtime.Error{Op: "start it", Kind: runtime.ErrNotReady}
				}
				return nil
			}
			s := newStation(t, e, "")
			n := s.start()
			got := s.ends(s.task(nil), standin.StatusCompleted)
			s.clean(n)
			if e.startsOf(got.RunID) != 1 {
				t.Errorf("started %d times", e.startsOf(got.RunID))
			}
		})
	}
}

func TestACrashedAlgorithmRunsAgainOnlyIfWanted(t *testing.T) {
	for yaml, starts := range map[string]int{
		"": 1, "limits: {crash_retries: 2}\n": 3,
		"limit_rules: [{image: registry.invalid/algo, limits: {crash_retries: 1}}]\n": 2,
	} {
		t.Run(yaml, func(t *testing.T) {
			e := newFakeEngine(func(*fakeRun) int { return 9 })
			s := newStation(t, e, yaml)
			n := s.start()
			got := s.ends(s.task(nil), standin.StatusCrashed, "exit code 9")
			s.clean(n)
			if e.startsOf(got.RunID) != starts || int(s.over(n).Attempt) != starts {
				t.Errorf("started %d times, want %d", e.startsOf(got.RunID), starts)
			}
		})
	}
}

func TestAnAlgorithmThatCrashedOnceCompletesWhenItRunsAgain(t *testing.T) {
	e := newFakeEngine(func(r *fakeRun) int {
		if r.spec.Attempt == 1 {
			if err := os.WriteFile(r.file("output"), []byte("half"), 0o600); err != nil {
				return 4
			}
			return 9
		}
		if b, err := os.ReadFile(r.file("output")); err != nil || len(b) != 0 {
			return 5 // of the try before
		}
		return echo(r)
	})
	s := newStation(t, e, "limits: {crash_retries: 1}\n")
	n := s.start()
	s.ends(s.task(nil), standin.StatusCompleted)
	s.clean(n)
}

func TestAPanicEndsItsRunAndNothingElse(t *testing.T) {
	e := newFakeEngine(echo)
	var first atomic.Bool
	e.fail = func(at string, _ *engine.Spec) error {
		if at == "create" && first.CompareAndSwap(false, true) {
			panic("a defect")
		}
		return nil
	}
	s := newStation(t, e, "")
	n := s.start()
	s.ends(s.task(nil), standin.StatusUnknownError, "the node failed (a defect): report this")
	s.ends(s.task(nil), standin.StatusCompleted)
	s.clean(n)
}

func TestNoLoopEndsSilently(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	for name, c := range map[string]struct {
		run  func(context.Context) error
		says string
	}{
		"by panic":      {func(context.Context) error { panic("a defect") }, "a loop: the node failed (a defect)"},
		"without error": {func(context.Context) error { return nil }, "a loop ended unexpectedly"},
		"with an error": {func(context.Context) error { return errHiccup }, "a loop: the runtime had a hiccup"},
	} {
		if err := n.loop(t.Context(), "a loop", c.run)(); err == nil || !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheTimeoutOfALivingRunIsChanged(t *testing.T) {
	s := newStation(t, newFakeEngine(untilStopped), "limits: {timeout: 1h}\n")
	n := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	v, wrong, short := n.view(), -1.0, 1.0
	s.eventually("a run that runs", func() bool { in, err := v.Inspect(s.ctx, run); return err == nil && in.State == admin.Running })
	if _, err := v.Update(s.ctx, run, admin.LimitChange{TimeoutSeconds: &wrong}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("a negative timeout: %v", err)
	}
	if l, err := v.Update(s.ctx, run, admin.LimitChange{TimeoutSeconds: &short}); err != nil || l.TimeoutSeconds != 1 || l.Pids != 2048 {
		t.Errorf("updated to %+v, %v", l, err)
	}
	s.ends(task, standin.StatusCrashed, "it had not ended after 1s")
	s.clean(n)
}
