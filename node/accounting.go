package node

import (
	"context"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/runtime"
)

// useOf turns the kernel's counters into the ledger's.
func useOf(u runtime.Usage) *ledger.Use {
	return &ledger.Use{
		CPU: time.Duration(u.CPUNanos), CPUUser: time.Duration(u.UserNanos), CPUSystem: time.Duration(u.SystemNanos),
		Throttled: time.Duration(u.ThrottledNanos), ThrottledTimes: u.Throttled,
		PeakMemory: u.PeakMemory, ReadBytes: u.ReadBytes, WrittenBytes: u.WrittenBytes, OOMKills: u.OOMKills,
	}
}

// account reads what a run has used, while its control group is still there.
func (n *Node) account(ctx context.Context, runID int64) *ledger.Use {
	u, err := n.engine.Usage(runID)
	if err != nil {
		n.log.WarnContext(ctx, "what a run has used could not be read", "run", runID, "error", err)
		return nil
	}
	return useOf(u)
}

// steps are how long the steps of a run took; one that has not ended yet, or
// was never begun, is zero.
type steps struct{ queued, image, prepared, ran, delivered time.Duration }

func stepsOf(rec *ledger.Record) steps {
	between := func(from, to time.Time) time.Duration {
		if from.IsZero() || to.Before(from) {
			return 0
		}
		return to.Sub(from)
	}
	return steps{
		queued: between(rec.ReceivedAt, rec.AdmittedAt), image: rec.ImageTook, prepared: between(rec.AdmittedAt, rec.StartedAt),
		ran: between(rec.StartedAt, rec.EndedAt), delivered: between(rec.FinishedAt, rec.DeliveredAt),
	}
}

// shownAccounting is what the administrator sees; use is nil where it is not
// known.
func shownAccounting(rec *ledger.Record, use *ledger.Use) *admin.Accounting {
	s := stepsOf(rec)
	a := &admin.Accounting{
		QueueSeconds: s.queued.Seconds(), ImageSeconds: s.image.Seconds(), StartSeconds: s.prepared.Seconds(),
		RunSeconds: s.ran.Seconds(), DeliverySeconds: s.delivered.Seconds(),
	}
	if use != nil {
		a.CPUSeconds, a.CPUUserSeconds, a.CPUSystemSeconds = use.CPU.Seconds(), use.CPUUser.Seconds(), use.CPUSystem.Seconds()
		a.ThrottledSeconds, a.ThrottledPeriods = use.Throttled.Seconds(), use.ThrottledTimes
		a.PeakMemory, a.ReadBytes, a.WrittenBytes, a.OOMKills = use.PeakMemory, use.ReadBytes, use.WrittenBytes, use.OOMKills
	}
	return a
}

// logEnd writes the one line that sums a run up.
func (n *Node) logEnd(ctx context.Context, rec *ledger.Record) {
	s := stepsOf(rec)
	short := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	image := rec.Pinned
	if image == "" {
		image = rec.Image
	}
	args := []any{
		"run", rec.RunID, "task", rec.TaskID, "image", image, "reason", rec.Reason, "status", rec.Status, "exit_code", rec.ExitCode, "attempt", rec.Attempt,
		"queued", short(s.queued), "prepared", short(s.prepared), "ran", short(s.ran), "delivered", short(s.delivered),
	}
	if u := rec.Use; u != nil {
		args = append(args, "cpu", short(u.CPU), "cpu_user", short(u.CPUUser), "cpu_system", short(u.CPUSystem),
			"throttled", short(u.Throttled), "throttled_periods", u.ThrottledTimes, "peak_memory", u.PeakMemory,
			"read_bytes", u.ReadBytes, "written_bytes", u.WrittenBytes, "oom_kills", u.OOMKills)
	}
	n.log.InfoContext(ctx, "run over", args...)
}
