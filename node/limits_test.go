package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/workspace"
)

func (s *station) ends(task int64, status string, says ...string) standin.Result {
	s.t.Helper()
	r := s.result(task)
	if r.Status != status {
		s.t.Errorf("task %d ended as %q: %s", task, r.Status, r.Log)
	}
	for _, words := range says {
		if !strings.Contains(r.Log, words) {
			s.t.Errorf("the log does not say %q: %s", words, r.Log)
		}
	}
	return r
}

// untilStopped runs until the node stops it.
func untilStopped(r *fakeRun) int {
	<-r.stop
	return 143
}

func TestLimitsReachTheEngine(t *testing.T) {
	specs := make(chan engine.Spec, 1)
	s := newStation(t, newFakeEngine(func(r *fakeRun) int { specs <- r.spec; return echo(r) }), `
limits: {memory: 1g, cpus: 1.5, ulimits: nofile=10:20, shm_size: 1m, oom_score_adj: 7}
limit_rules:
  - {image: registry.invalid/algo, limits: {memory: 2g, memory_swap: -1}}
  - {organization: nobody, limits: {cpus: 9}}
  - {organization: hospital, limits: {pids: 77}}
`)
	r := s.start()
	s.ends(s.task(nil), standin.StatusCompleted)
	got := <-specs
	if f := got.Resources; f.MemoryLimit != 2<<30 || f.MemorySwap != -1 || f.CPUQuota != 150_000 || f.CPUPeriod != 100_000 || f.PidsLimit != 77 || *f.OOMScoreAdj != 7 {
		t.Errorf("resources %+v", f)
	}
	if fmt.Sprint(got.Rlimits) != "[{RLIMIT_NOFILE 10 20}]" || got.BestEffort {
		t.Errorf("limits %v, best effort %t", got.Rlimits, got.BestEffort)
	}
	found := false
	for _, m := range got.Mounts {
		found = found || m.ContainerPath == "/dev/shm" && !m.ReadOnly
	}
	if !found {
		t.Errorf("no /dev/shm among %v", got.Mounts)
	}
	s.clean(r)
}

func TestALimitThatIsNotInForceStopsTheRun(t *testing.T) {
	for _, c := range []struct {
		when    string
		started bool
	}{{"before the start", false}, {"after the start", true}} {
		t.Run(c.when, func(t *testing.T) {
			e := newFakeEngine(untilStopped)
			e.verify = func(_ *engine.Spec, started bool) error {
				if started == c.started {
					return fmt.Errorf("%w: the memory limit should be 5 but is 6", engine.ErrLimit)
				}
				return nil
			}
			s := newStation(t, e, "limits: {ulimits: core=0}\n")
			r := s.start()
			got := s.ends(s.task(nil), standin.StatusStartFailed, "v6node: ", "because a limit is not in force", "should be 5 but is 6")
			if n := e.startsOf(got.RunID); (n == 1) != c.started {
				t.Errorf("started %d times", n)
			}
			s.clean(r)
		})
	}
}

func TestWithBestEffortARunGoesOnWithoutALimit(t *testing.T) {
	e := newFakeEngine(echo)
	e.verify = func(s *engine.Spec, _ bool) error {
		if !s.BestEffort {
			return errors.New("the engine is not told")
		}
		return engine.ErrLimit
	}
	s := newStation(t, e, "limits: {ulimits: core=0}\nresources: {enforce: best-effort}\n")
	r := s.start()
	s.ends(s.task(nil), standin.StatusCompleted)
	s.clean(r)
}

func TestARunThatTakesTooLongIsStopped(t *testing.T) {
	s := newStation(t, newFakeEngine(untilStopped), "limits: {timeout: 1s}\n")
	r := s.start()
	s.ends(s.task(nil), standin.StatusCrashed, "v6node: the algorithm was stopped: it had not ended after 1s")
	s.clean(r)
}

func TestATimeoutGoesOnAfterARestart(t *testing.T) {
	s := newStation(t, newFakeEngine(untilStopped), "limits: {timeout: 2s}\n")
	first := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	r := s.start()
	s.ends(task, standin.StatusCrashed, "it had not ended after 2s")
	rec, err := r.node.ledger.Get(run)
	if err != nil || rec.FinishedAt.Sub(rec.StartedAt) > 10*time.Second || rec.Reason != string(ReasonTimeout) {
		t.Errorf("%+v, %v", rec, err)
	}
	s.clean(r)
}

func TestARunThatFillsTheDiskIsStopped(t *testing.T) {
	fill := func(path func(*fakeRun) string, size int64) func(*fakeRun) int {
		return func(r *fakeRun) int {
			if err := os.WriteFile(path(r), make([]byte, size), 0o600); err != nil {
				return 4
			}
			return untilStopped(r)
		}
	}
	for name, c := range map[string]struct {
		algorithm func(*fakeRun) int
		says      string
	}{
		"output":  {fill(func(r *fakeRun) string { return r.file("output") }, 3<<20), "took more than 1 MiB on the disk (limits.output_size)"},
		"beside":  {fill(func(r *fakeRun) string { return r.file("other") }, 3<<20), "took more than 1 MiB on the disk (limits.output_size)"},
		"scratch": {fill(func(r *fakeRun) string { return r.host("/mnt/tmp/x") }, 3<<20), "took more than 2 MiB on the disk (limits.scratch_size)"},
		"many": {func(r *fakeRun) int {
			for i := range 600 {
				if err := os.WriteFile(r.host(fmt.Sprintf("/mnt/tmp/%d", i)), nil, 0o600); err != nil {
					return 4
				}
			}
			return untilStopped(r)
		}, "limits.scratch_size"},
		"nested": {func(r *fakeRun) int {
			if err := os.MkdirAll(r.host("/mnt/tmp/"+strings.Repeat("d/", 100)), 0o700); err != nil {
				return 4
			}
			return untilStopped(r)
		}, "cannot be measured"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStation(t, newFakeEngine(c.algorithm), "limits: {output_size: 1m, scratch_size: 2m}\n")
			r := s.start()
			s.ends(s.task(nil), standin.StatusCrashed, "v6node: the algorithm was stopped", c.says)
			s.clean(r)
		})
	}
}

func TestAResultOfExactlyTheLimitIsDelivered(t *testing.T) {
	s := newStation(t, newFakeEngine(func(r *fakeRun) int {
		if err := os.WriteFile(r.file("output"), make([]byte, 1<<20), 0o600); err != nil {
			return 4
		}
		// Long enough to be measured several times.
		select {
		case <-r.stop:
			return 143
		case <-time.After(4 * measureEvery):
			return 0
		}
	}), "limits: {output_size: 1m, scratch_size: 1m}\n")
	r := s.start()
	if got := s.ends(s.task(map[string]any{"text": strings.Repeat("x", 3<<20)}), standin.StatusCompleted); len(got.Data) != 1<<20 {
		t.Errorf("%d bytes", len(got.Data))
	}
	s.clean(r)
}

func TestDevicesAreNotGivenTwice(t *testing.T) {
	release := make(chan struct{})
	specs := make(chan engine.Spec, 3)
	e := newFakeEngine(func(r *fakeRun) int { specs <- r.spec; return until(release)(r) })
	s := newStation(t, e, "limits: {devices: a.b/gpu:1}\n")
	r := s.start()
	r.node.inventory = func() (map[string][]string, error) {
		return map[string][]string{"a.b/gpu": {"0", "1", "2", "all"}}, nil
	}
	first, second := s.task(nil), s.task(nil)
	a, b := <-specs, <-specs
	if len(a.Devices) != 1 || len(b.Devices) != 1 || a.Devices[0] == b.Devices[0] {
		t.Errorf("%v and %v", a.Devices, b.Devices)
	}
	// The third of the machine is for a subtask.
	third := s.task(nil)
	s.eventually("a run that waits for its device", func() bool {
		q, err := r.view().Queue(s.ctx)
		return err == nil && len(q) == 1 && q[0].Task == third && strings.Contains(q[0].Reason, "waiting for a.b/gpu: 1 asked, 1 free of 3 and kept for subtasks")
	})
	close(release)
	for _, task := range []int64{first, second, third} {
		s.ends(task, standin.StatusCompleted)
	}
	s.clean(r)
}

func TestARunThatAsksForMoreDevicesThanThereAreFailsAtOnce(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "limits: {devices: a.b/gpu:2}\nresources: {budget: {devices: a.b/gpu:1}}\n")
	r := s.start()
	s.ends(s.task(nil), standin.StatusStartFailed, "it asks for 2 of a.b/gpu and the budget has 0")
	r.node.inventory = func() (map[string][]string, error) { return map[string][]string{"a.b/gpu": {"0", "1", "2"}}, nil }
	s.ends(s.task(nil), standin.StatusStartFailed, "can never start on this node", "it asks for 2 of a.b/gpu and the budget has 1")
	s.clean(r)
}

func TestAReserveIsTakenOffTheMachine(t *testing.T) {
	machine := admission.Capacity{Resources: admission.Resources{Memory: 8 << 30, MilliCPUs: 4000, Pids: 1000}}
	var b config.Budget
	b.Reserve.Memory, b.Reserve.CPUs, b.Pids = new(int64(1<<30)), new(int64(1)), 77
	got, err := budgetOf(machine, b)
	if want := (admission.Resources{Memory: 7 << 30, MilliCPUs: 3000, Pids: 77}); err != nil || !reflect.DeepEqual(got.Resources, want) {
		t.Errorf("%+v, %v", got, err)
	}
	b.Reserve.Memory = new(int64(8 << 30))
	if _, err := budgetOf(machine, b); !errors.Is(err, config.ErrInvalid) {
		t.Errorf("a reserve of everything: %v", err)
	}
}

func TestWhyTheKernelKilledIsSaid(t *testing.T) {
	limit := limits.Limits{Memory: 64 << 20, OutputSize: 100}
	for _, c := range []struct {
		exit   engine.Exit
		limits limits.Limits
		size   int64
		err    error
		reason Reason
		says   string
	}{
		{engine.Exit{Code: 137, OOMKilled: true, PeakMemory: 64 << 20}, limit, 0, workspace.ErrNoOutput, ReasonMemory, "killed: memory limit 64 MiB reached (peak 64 MiB), exit code 137"},
		{engine.Exit{Code: 5, OOMKilled: true, PeakMemory: 60 << 20}, limit, 3, nil, ReasonMemory, "killed: memory limit 64 MiB reached (peak 60 MiB), exit code 5"},
		{engine.Exit{Code: 0, OOMKilled: true}, limit, 0, workspace.ErrNoOutput, ReasonMemory, "killed: memory limit 64 MiB reached, exit code 0"},
		{engine.Exit{Code: 0, OOMKilled: true, PeakMemory: 64 << 20}, limit, 3, nil, ReasonMemory, "killed: memory limit 64 MiB reached (peak 64 MiB), exit code 0"},
		{engine.Exit{Code: 0, OOMKilled: true}, limit, 300, nil, ReasonMemory, "killed: memory limit"},
		{engine.Exit{Code: 137, OOMKilled: true, PeakMemory: 3 << 30}, limits.Limits{}, 0, nil, ReasonMemory, "killed: the machine ran out of memory (peak 3 GiB)"},
		{engine.Exit{Code: 137}, limit, 0, nil, ReasonCrashed, "not by this node"},
		{engine.Exit{Code: 255, Lost: true}, limit, 3, nil, ReasonCrashed, "does not know how"},
		{engine.Exit{}, limit, 3, nil, ReasonCompleted, ""},
	} {
		out := judge(&c.exit, c.size, c.limits, c.err)
		if out.reason != c.reason || !strings.Contains(out.message, c.says) || (c.says == "") != (out.message == "") || out.output != (c.reason == ReasonCompleted) {
			t.Errorf("%+v with %d bytes: %+v, want %q and %q", c.exit, c.size, out, c.reason, c.says)
		}
	}
}

// TestFilesWithoutANameAreFound: the fake's algorithm runs in this very process.
func TestFilesWithoutANameAreFound(t *testing.T) {
	s := newStation(t, newFakeEngine(func(r *fakeRun) int {
		path := r.host("/mnt/tmp/held")
		f, err := os.Create(path)
		if err != nil {
			return 4
		}
		defer f.Close()
		if err := os.Remove(path); err != nil {
			return 4
		}
		<-time.After(2 * measureEvery) // the free space was looked at
		if _, err := f.Write(make([]byte, 2*heldStep)); err != nil {
			return 4
		}
		return untilStopped(r)
	}), "limits: {output_size: 1m, scratch_size: 2m}\n")
	if err := os.MkdirAll(filepath.Join(s.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := s.start()
	s.ends(s.task(nil), standin.StatusCrashed, "had deleted and still held open")
	s.clean(r)
}
