package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace is the first word of every metric of the node's own.
const namespace = "v6node"

// Phase is a step of a run's start.
type Phase string

// The phases of a start, in their order. Image and sandbox go on side by side.
const (
	PhaseQueue   Phase = "queue"   // from the arrival until there is room
	PhaseSandbox Phase = "sandbox" // the sandbox is made and its network checked
	PhaseGateway Phase = "gateway" // the proxy listens inside the sandbox
	PhaseCreate  Phase = "create"  // the container is made
	PhaseStart   Phase = "start"   // the container is started
)

var phases = []Phase{PhaseQueue, PhaseSandbox, PhaseGateway, PhaseCreate, PhaseStart}

// Buckets in seconds.
var (
	// stepBuckets are for what usually takes milliseconds.
	stepBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	// workBuckets are for what moves data.
	workBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800}
	// runBuckets are for algorithms.
	runBuckets = []float64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}
)

// Kinds are the values that labels can have. All are known from the start, so
// that every series begins at zero.
type Kinds struct {
	Outcomes map[string]string // reasons with their statuses at the server
	Events   []string
	// Collected are the kinds of things that are removed to make room.
	Collected []string
}

// Recorder counts what happens. Its methods are safe for concurrent use, never
// wait, and do nothing on a nil Recorder.
type Recorder struct {
	finished, delivered *prometheus.CounterVec
	events              *prometheus.CounterVec
	phase               *prometheus.HistogramVec
	ran                 prometheus.Histogram
	deliveryFailures    prometheus.Counter
	deliveryDelay       prometheus.Histogram
	looks               prometheus.Histogram
	lookFailures        prometheus.Counter
	pulls, conversions  *work
	collected, freed    *prometheus.CounterVec
	outcomes            map[string]string
}

// work counts attempts that move data.
type work struct {
	tries   *prometheus.CounterVec
	bytes   prometheus.Counter
	seconds prometheus.Histogram
}

// NewRecorder makes a recorder whose counters are zero.
func NewRecorder(k Kinds) *Recorder {
	outcome := []string{"reason", "status"}
	r := &Recorder{
		finished:         counters("runs_finished_total", "Runs whose outcome was decided.", outcome...),
		delivered:        counters("runs_delivered_total", "Runs whose outcome the server has acknowledged.", outcome...),
		events:           counters("events_total", "Events of the journal that v6node events shows.", "type"),
		phase:            prometheus.NewHistogramVec(histogramOpts("run_phase_duration_seconds", "Time that a phase of a run's start took.", stepBuckets), []string{"phase"}),
		ran:              histogram("run_duration_seconds", "Time from an algorithm's start to its outcome.", runBuckets),
		deliveryFailures: counter("delivery_failures_total", "Attempts to deliver an outcome that failed and are repeated."),
		deliveryDelay:    histogram("delivery_duration_seconds", "Time from an outcome until the server has acknowledged it.", workBuckets),
		looks:            histogram("reconcile_duration_seconds", "Time of one full look at the server's open runs.", stepBuckets),
		lookFailures:     counter("reconcile_failures_total", "Looks at the server's open runs that failed."),
		pulls:            newWork("image_pull", "image pulls", "fetched by image pulls, as the runtime reports an image's size"),
		conversions:      newWork("image_conversion", "conversions of SIF images", "of SIF images that were converted"),
		collected:        counters("gc_removed_total", "Things that were removed to make room.", "kind"),
		freed:            counters("gc_freed_bytes_total", "Bytes that were freed to make room.", "kind"),
		outcomes:         k.Outcomes,
	}
	for reason, status := range k.Outcomes {
		r.finished.WithLabelValues(reason, status)
		r.delivered.WithLabelValues(reason, status)
	}
	for _, e := range k.Events {
		r.events.WithLabelValues(e)
	}
	for _, kind := range k.Collected {
		r.collected.WithLabelValues(kind)
		r.freed.WithLabelValues(kind)
	}
	for _, p := range phases {
		r.phase.WithLabelValues(string(p))
	}
	return r
}

func newWork(name, what, data string) *work {
	w := &work{
		tries:   counters(name+"s_total", "Finished "+what+" by result: ok or failed.", "result"),
		bytes:   counter(name+"_bytes_total", "Bytes "+data+"."),
		seconds: histogram(name+"_duration_seconds", "Time of successful "+what+".", workBuckets),
	}
	w.tries.WithLabelValues("ok")
	w.tries.WithLabelValues("failed")
	return w
}

func (w *work) done(bytes int64, took time.Duration, err error) {
	if err != nil {
		w.tries.WithLabelValues("failed").Inc()
		return
	}
	w.tries.WithLabelValues("ok").Inc()
	w.bytes.Add(float64(max(0, bytes)))
	w.seconds.Observe(took.Seconds())
}

// Event counts an event of the journal.
func (r *Recorder) Event(kind string) {
	if r != nil {
		r.events.WithLabelValues(kind).Inc()
	}
}

// Finished counts an outcome. ran is how long the algorithm ran, 0 for one that
// was never started.
func (r *Recorder) Finished(reason string, ran time.Duration) {
	if r == nil {
		return
	}
	r.finished.WithLabelValues(reason, r.outcomes[reason]).Inc()
	if ran > 0 {
		r.ran.Observe(ran.Seconds())
	}
}

// Delivered counts an outcome that the server has acknowledged, so long after
// it was decided.
func (r *Recorder) Delivered(reason string, after time.Duration) {
	if r == nil {
		return
	}
	r.delivered.WithLabelValues(reason, r.outcomes[reason]).Inc()
	r.deliveryDelay.Observe(max(0, after.Seconds()))
}

// DeliveryFailed counts an attempt to deliver that is to be repeated.
func (r *Recorder) DeliveryFailed() {
	if r != nil {
		r.deliveryFailures.Inc()
	}
}

// Phase notes how long a phase of a start took.
func (r *Recorder) Phase(p Phase, took time.Duration) {
	if r != nil {
		r.phase.WithLabelValues(string(p)).Observe(max(0, took.Seconds()))
	}
}

// Looked notes a full look at the server's open runs.
func (r *Recorder) Looked(took time.Duration, err error) {
	switch {
	case r == nil:
	case err != nil:
		r.lookFailures.Inc()
	default:
		r.looks.Observe(took.Seconds())
	}
}

// Pulled notes an image pull that has ended; bytes is the image's size.
func (r *Recorder) Pulled(bytes int64, took time.Duration, err error) {
	if r != nil {
		r.pulls.done(bytes, took, err)
	}
}

// Converted notes a SIF image's conversion that has ended; bytes is the file's
// size. An image that was found converted does not count.
func (r *Recorder) Converted(bytes int64, took time.Duration, err error) {
	if r != nil {
		r.conversions.done(bytes, took, err)
	}
}

// Collected counts something that was removed to make room. kind is a word of
// the node's own, such as "image".
func (r *Recorder) Collected(kind string, bytes int64) {
	if r != nil {
		r.collected.WithLabelValues(kind).Inc()
		r.freed.WithLabelValues(kind).Add(float64(max(0, bytes)))
	}
}

func (r *Recorder) collectors() []prometheus.Collector {
	out := []prometheus.Collector{
		r.finished, r.delivered, r.events, r.phase, r.ran, r.deliveryFailures, r.deliveryDelay, r.looks, r.lookFailures, r.collected, r.freed,
	}
	for _, w := range []*work{r.pulls, r.conversions} {
		out = append(out, w.tries, w.bytes, w.seconds)
	}
	return out
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(histogramOpts(name, help, buckets))
}

func histogramOpts(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}
}
