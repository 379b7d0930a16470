//go:build integration

package embedded

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkRun measures the CRI calls of one run, on the programs of the
// bundle and with the written configuration: the median of each, and the
// containerd's memory after the runs.
func BenchmarkRun(b *testing.B) {
	n := startNode(b, testConfig(b))
	ctx := b.Context()
	n.remove(ctx, n.sandbox(ctx, "warm"))
	idle := rss(b, n.PID())
	names := []string{"sandbox-ms", "create-ms", "start-ms", "remove-ms"}
	took := make([][]time.Duration, len(names))
	for b.Loop() {
		name := fmt.Sprintf("run%d", len(took[0]))
		at := []time.Time{time.Now()}
		sb := n.sandbox(ctx, name)
		at = append(at, time.Now())
		c := n.container(ctx, sb, name)
		at = append(at, time.Now())
		n.start(ctx, c)
		at = append(at, time.Now())
		n.remove(ctx, sb)
		at = append(at, time.Now())
		for i := range names {
			took[i] = append(took[i], at[i+1].Sub(at[i]))
		}
	}
	for i, name := range names {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Microseconds())/1000, name)
	}
	b.ReportMetric(float64(idle)/1024, "idle-MiB")
	b.ReportMetric(float64(rss(b, n.PID()))/1024, "after-MiB")
}

// rss is the resident set of a process in KiB.
func rss(tb testing.TB, pid int) (kib int) {
	tb.Helper()
	f, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(f)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(v, &kib); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return kib
}
