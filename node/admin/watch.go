package admin

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// watch samples the station at once and then at each interval, until ctx ends
// or none of the named runs lives any more.
func watch(ctx context.Context, st Station, runs []int64, interval time.Duration, fn func(*StatsFrame) error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	before := make(map[int64]Usage)
	for first := true; ; first = false {
		usages, err := st.Stats(ctx, runs)
		if err != nil {
			return err
		}
		if len(runs) > 0 {
			if err := missing(runs, usages); first && err != nil {
				return err
			}
			if len(usages) == 0 {
				return nil
			}
		}
		if err := fn(frame(usages, before)); err != nil {
			return err
		}
		clear(before)
		for _, u := range usages {
			before[u.Run] = u
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// missing is an error for the first of runs that has no usage.
func missing(runs []int64, usages []Usage) error {
	for _, id := range runs {
		if !slices.ContainsFunc(usages, func(u Usage) bool { return u.Run == id }) {
			return Problemf(ErrState, "run %d does not run, so it uses nothing", id)
		}
	}
	return nil
}

func frame(usages []Usage, before map[int64]Usage) *StatsFrame {
	f := &StatsFrame{Time: time.Now().UTC(), Runs: make([]Stats, 0, len(usages))}
	for _, u := range usages {
		f.Runs = append(f.Runs, statsOf(u, before[u.Run]))
	}
	slices.SortFunc(f.Runs, func(a, b Stats) int { return cmp.Compare(a.Run, b.Run) })
	return f
}

// statsOf compares a usage with the one before it. The zero Usage stands for
// the run's start.
func statsOf(u, before Usage) Stats {
	s := Stats{Usage: u}
	since := before.Time
	if since.IsZero() || u.CPUNanos < before.CPUNanos { // the latter: another attempt
		since, before.CPUNanos = u.StartedAt, 0
	}
	if d := u.Time.Sub(since); !since.IsZero() && d > 0 {
		s.CPUPercent = 100 * float64(u.CPUNanos-before.CPUNanos) / float64(d)
	}
	if u.MemoryLimit > 0 {
		s.MemoryPercent = 100 * float64(u.Memory) / float64(u.MemoryLimit)
	}
	return s
}
