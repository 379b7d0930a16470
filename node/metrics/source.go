package metrics

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is the node as it is at the moment of a scrape. Measure is called by
// one goroutine at a time, and must neither wait for server or runtime nor fail.
type Source interface {
	Measure(ctx context.Context) *Measurement
}

// Measurement is the state of a node at one moment.
type Measurement struct {
	// Runs counts the open runs by state; every state is there.
	Runs      map[string]int
	Admission Admission
	Living    []Run
	Session   Session
	Paused    bool
}

// Admission is the queue and what the node shares out. In a budget, zero is no
// limit, and such a resource is not exported.
type Admission struct {
	Queued       int
	OldestWait   time.Duration // of those that wait
	Budget, Used Resources
	Admitted     int64 // since the start, like the following
	Backfilled   int64
	Refused      int64
	Stalls       int64
}

// Resources is an amount of what the node shares out.
type Resources struct {
	Runs, Memory, Pids int64
	CPUs               float64
	Devices            map[string]int64 // by kind
}

// Run is what one living run uses. Amounts count from its start; a limit of
// zero is none.
type Run struct {
	Run, Task           string // their numbers
	Started             time.Time
	CPU, Throttled      time.Duration
	Memory, MemoryLimit int64
	Pids, PidsLimit     int64
	Read, Written       int64
}

// Session is the session with the server.
type Session struct {
	LoggedIn, Connected bool
	Connections         int       // of the event socket since the start
	Synced              time.Time // the last full look at the open runs
}

var (
	descRuns       = desc("runs", "Open runs by state.", "state")
	descQueued     = desc("queue_length", "Runs that wait for room.")
	descOldest     = desc("queue_oldest_wait_seconds", "Waiting time of the run that has waited longest, 0 when none waits.")
	descBudget     = newResourceDescs("budget", "What all runs together may have of ")
	descUsed       = newResourceDescs("used", "What admitted runs have of the budget's ")
	descAdmitted   = desc("admission_admitted_total", "Runs that got their room.")
	descBackfilled = desc("admission_backfilled_total", "Runs that got their room before one whose turn it was and that did not fit.")
	descRefused    = desc("admission_refused_total", "Runs that ask for more than the node has.")
	descStalls     = desc("admission_stalls_total", "Subtasks that were refused because every run waited for one.")

	descRunStart     = desc("run_start_timestamp_seconds", "Start of a living run, in seconds since 1970.", "run", "task")
	descRunCPU       = desc("run_cpu_seconds_total", "CPU time of a living run.", "run", "task")
	descRunThrottled = desc("run_cpu_throttled_seconds_total", "Time for which its CPU limit held a living run back.", "run", "task")
	descRunMemory    = desc("run_memory_bytes", "Memory of a living run, without file cache that the kernel can drop at once.", "run", "task")
	descRunMemLimit  = desc("run_memory_limit_bytes", "Memory limit of a living run; absent where it has none.", "run", "task")
	descRunPids      = desc("run_pids", "Processes and threads of a living run.", "run", "task")
	descRunPidsLimit = desc("run_pids_limit", "Limit of processes and threads of a living run; absent where it has none.", "run", "task")
	descRunRead      = desc("run_read_bytes_total", "Bytes that a living run has read from block devices.", "run", "task")
	descRunWritten   = desc("run_written_bytes_total", "Bytes that a living run has written to block devices.", "run", "task")

	descLoggedIn   = desc("server_logged_in", "1 when the node has logged in at its server since its start.")
	descConnected  = desc("server_connected", "1 while the event socket to the server is up.")
	descReconnects = desc("server_reconnects_total", "Times that the event socket came up again after it was lost.")
	descSynced     = desc("reconcile_last_success_timestamp_seconds", "Last full look at the server's open runs, in seconds since 1970; absent before the first.")
	descPaused     = desc("paused", "1 while the node begins no further run.")

	descAlive = desc("loop_alive", "1 while a loop of the node makes progress, 0 when it is stuck.", "loop")
	descReady = desc("ready", "1 when a condition for taking runs is met; what /readyz says.", "condition")
	descBuild = desc("build_info", "1, with the version of v6node and of Go.", "version", "goversion")
)

// resourceDescs are the metrics of an amount of everything that is shared out.
type resourceDescs struct{ runs, memory, cpus, pids, devices *prometheus.Desc }

func newResourceDescs(kind, what string) resourceDescs {
	return resourceDescs{
		runs:    desc(kind+"_runs", what+"runs at the same time."),
		memory:  desc(kind+"_memory_bytes", what+"memory."),
		cpus:    desc(kind+"_cpus", what+"CPUs."),
		pids:    desc(kind+"_pids", what+"processes and threads."),
		devices: desc(kind+"_devices", what+"devices, by kind.", "kind"),
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// state is a Source as a collector. It describes nothing before, so that a
// series may be absent.
type state struct {
	ctx     context.Context // ends with the server
	source  Source
	health  Health
	version string
}

// Describe implements prometheus.Collector.
func (state) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s state) Collect(out chan<- prometheus.Metric) {
	c := sink{out}
	m := s.source.Measure(s.ctx)
	for name, n := range m.Runs {
		c.gauge(descRuns, float64(n), name)
	}
	a := &m.Admission
	c.gauge(descQueued, float64(a.Queued))
	c.gauge(descOldest, a.OldestWait.Seconds())
	c.resources(descBudget, &a.Budget, true)
	c.resources(descUsed, &a.Used, false)
	c.counter(descAdmitted, float64(a.Admitted))
	c.counter(descBackfilled, float64(a.Backfilled))
	c.counter(descRefused, float64(a.Refused))
	c.counter(descStalls, float64(a.Stalls))
	for i := range m.Living {
		c.run(&m.Living[i])
	}
	c.gauge(descLoggedIn, truth(m.Session.LoggedIn))
	c.gauge(descConnected, truth(m.Session.Connected))
	c.counter(descReconnects, float64(max(0, m.Session.Connections-1)))
	if !m.Session.Synced.IsZero() {
		c.gauge(descSynced, seconds(m.Session.Synced))
	}
	c.gauge(descPaused, truth(m.Paused))
	for _, i := range s.health.Alive().Items {
		c.gauge(descAlive, truth(i.OK), i.Name)
	}
	for _, i := range s.health.Ready(s.ctx).Items {
		c.gauge(descReady, truth(i.OK), i.Name)
	}
	c.gauge(descBuild, 1, s.version, runtime.Version())
}

// sink sends values to a collection.
type sink struct{ out chan<- prometheus.Metric }

func (c sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	c.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c sink) counter(d *prometheus.Desc, v float64, labels ...string) {
	c.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (c sink) run(r *Run) {
	id := []string{r.Run, r.Task}
	c.gauge(descRunStart, seconds(r.Started), id...)
	c.counter(descRunCPU, r.CPU.Seconds(), id...)
	c.counter(descRunThrottled, r.Throttled.Seconds(), id...)
	c.gauge(descRunMemory, float64(r.Memory), id...)
	if r.MemoryLimit > 0 {
		c.gauge(descRunMemLimit, float64(r.MemoryLimit), id...)
	}
	c.gauge(descRunPids, float64(r.Pids), id...)
	if r.PidsLimit > 0 {
		c.gauge(descRunPidsLimit, float64(r.PidsLimit), id...)
	}
	c.counter(descRunRead, float64(r.Read), id...)
	c.counter(descRunWritten, float64(r.Written), id...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// resources sends an amount; limit says of an amount of zero that it is none.
func (c sink) resources(d resourceDescs, r *Resources, limit bool) {
	for _, a := range []struct {
		desc *prometheus.Desc
		n    float64
	}{{d.runs, float64(r.Runs)}, {d.memory, float64(r.Memory)}, {d.cpus, r.CPUs}, {d.pids, float64(r.Pids)}} {
		if a.n != 0 || !limit {
			c.gauge(a.desc, a.n)
		}
	}
	for kind, n := range r.Devices {
		c.gauge(d.devices, float64(n), kind)
	}
}
