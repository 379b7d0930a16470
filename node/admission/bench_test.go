package admission

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// cpuTime is what this process has used. Unlike the clock it does not depend on
// what else the machine does.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// mixed is a queue of n runs of 20 organizations and many sizes.
func mixed(n int64) []Request {
	all := make([]Request, 0, n)
	for id := int64(1); id <= n; id++ {
		q := root(id, id%20).mem((1 + id%13) * gib / 2)
		q.Ask.MilliCPUs = 250 * (1 + id%7)
		all = append(all, q)
	}
	return all
}

// BenchmarkDecision measures what one end of a run costs, with the start of
// others that follows, at so many queued runs of all sizes.
func BenchmarkDecision(b *testing.B) {
	for _, queue := range []int64{500, 10_000} {
		b.Run(fmt.Sprint(queue), func(b *testing.B) { decision(b, queue) })
	}
}

func decision(b *testing.B, queue int64) {
	for _, kind := range []string{"mixed", "equal"} {
		b.Run(kind, func(b *testing.B) {
			budget := Budget{Resources: Resources{Memory: 16 * gib, MilliCPUs: 8000}, Runs: 8}
			c, _ := newController(b, budget, Options{OnEvent: func(Event) {}})
			if kind == "equal" {
				budget.Resources = Resources{}
			}
			if err := c.SetBudget(budget); err != nil {
				b.Fatal(err)
			}
			c.Pause()
			for _, q := range mixed(queue) {
				if kind == "equal" {
					q.Ask = Resources{}
				}
				enqueue(b, c, q)
			}
			c.Resume()
			next := queue
			began := cpuTime(b)
			defer func() {
				// Each turn decides twice: at the arrival and at the end.
				b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(2*b.N), "cpu-ns/decision")
			}()
			for b.Loop() {
				c.mu.Lock()
				var end int64
				for r := range c.running {
					end = r.RunID
					break
				}
				c.mu.Unlock()
				next++
				q := root(next, next%20)
				if kind != "equal" {
					q = q.mem((1 + next%13) * gib / 2)
				}
				enqueue(b, c, q) // keeps the queue at its length
				c.Leave(end)
			}
		})
	}
}

func BenchmarkSnapshotOf10000(b *testing.B) {
	c, _ := newController(b, Budget{Resources: Resources{Memory: 16 * gib}, Runs: 8}, Options{OnEvent: func(Event) {}})
	c.Pause()
	enqueue(b, c, mixed(10_000)...)
	c.Resume()
	began := cpuTime(b)
	defer func() { b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op") }()
	for b.Loop() {
		if len(c.Snapshot().Queued) == 0 {
			b.Fatal("nothing queued")
		}
	}
}

// BenchmarkQueuedMemory reports the heap that a queued run takes.
func BenchmarkQueuedMemory(b *testing.B) {
	for _, n := range []int64{500, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				c, _ := newController(b, slots(8), Options{OnEvent: func(Event) {}})
				c.Pause()
				for id := int64(1); id <= n; id++ {
					enqueue(b, c, root(id, id%20))
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/run")
				runtime.KeepAlive(c)
			}
		})
	}
}
