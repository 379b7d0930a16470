package node

import (
	"testing"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/ledger"
)

// over lists the one run that is over.
func (s *station) over(n *running) *admin.Run {
	s.t.Helper()
	var out *admin.Run
	if err := n.view().Runs(s.ctx, admin.RunQuery{All: true}, func(r *admin.Run) error { out = r; return nil }); err != nil || out == nil {
		s.t.Fatalf("run %+v, %v", out, err)
	}
	return out
}

func TestWhatARunHasUsedOutlivesTheNode(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "")
	first := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	in, err := first.view().Inspect(s.ctx, run)
	if err != nil || in.Accounting == nil || in.Accounting.CPUSeconds != 1 || in.Accounting.RunSeconds == 0 || in.Run.Accounting != in.Accounting {
		t.Errorf("while it runs: %+v, %v", in, err)
	}
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	close(gate) // it ends while the node is away
	second := s.start()
	s.result(task)
	s.clean(second)
	if err := second.end(); err != nil {
		t.Fatal(err)
	}
	a := s.over(s.start()).Accounting
	want := admin.Accounting{
		CPUSeconds: 1, CPUUserSeconds: 0.9, CPUSystemSeconds: 0.1, ThrottledSeconds: 7e-9, ThrottledPeriods: 3, PeakMemory: 2 << 20, ReadBytes: 5, WrittenBytes: 6,
		QueueSeconds: a.QueueSeconds, ImageSeconds: a.ImageSeconds, StartSeconds: a.StartSeconds, RunSeconds: a.RunSeconds, DeliverySeconds: a.DeliverySeconds,
	}
	if *a != want || a.ImageSeconds <= 0 || a.StartSeconds < a.ImageSeconds || a.RunSeconds <= 0 || a.DeliverySeconds <= 0 {
		t.Errorf("after two restarts: %+v", a)
	}
}

func TestARunThatNeverStartedHasTimesOnly(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "policies: {allowed_algorithms: [other]}\n")
	n := s.start()
	s.result(s.task(nil))
	s.clean(n)
	if a := s.over(n).Accounting; a.CPUSeconds != 0 || a.PeakMemory != 0 || a.RunSeconds != 0 || a.DeliverySeconds <= 0 {
		t.Errorf("%+v", a)
	}
}

func TestStepsThatDidNotHappenTookNoTime(t *testing.T) {
	now := time.Now()
	got := stepsOf(&ledger.Record{ReceivedAt: now, EndedAt: now, FinishedAt: now.Add(time.Second), DeliveredAt: now.Add(3 * time.Second)})
	if got != (steps{delivered: 2 * time.Second}) {
		t.Errorf("%+v", got)
	}
}
