package admission

import (
	"slices"
	"testing"
)

const gib = 1 << 30

// recorder keeps what a controller told, in order.
type recorder struct{ events []Event }

func (r *recorder) on(e Event) { r.events = append(r.events, e) }

// started lists the admitted runs in the order in which they were.
func (r *recorder) started() []int64 {
	var ids []int64
	for _, e := range r.events {
		if e.Kind == Admitted {
			ids = append(ids, e.RunID)
		}
	}
	return ids
}

func (r *recorder) refusal(run int64) error {
	for _, e := range r.events {
		if e.Kind == Refused && e.RunID == run {
			return e.Err
		}
	}
	return nil
}

func newController(tb testing.TB, b Budget, o Options) (*Controller, *recorder) {
	tb.Helper()
	rec := &recorder{}
	if o.OnEvent == nil {
		o.OnEvent = rec.on
	}
	c, err := New(b, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c, rec
}

func slots(n int64) Budget { return Budget{Runs: n} }

func memory(n, runs int64) Budget { return Budget{Resources: Resources{Memory: n}, Runs: runs} }

// root is a run without parent; its task has the run's number.
func root(id, org int64) Request { return Request{RunID: id, TaskID: id, OrganizationID: org} }

// childOf is a subtask of the task of run parent.
func childOf(id, parent int64) Request {
	return Request{RunID: id, TaskID: id, ParentTaskID: parent, OrganizationID: 99}
}

func (q Request) mem(n int64) Request { q.Ask.Memory = n; return q }

func (q Request) device(name string, n int64) Request {
	q.Ask.Devices = map[string]int64{name: n}
	return q
}

func enqueue(tb testing.TB, c *Controller, all ...Request) {
	tb.Helper()
	for _, q := range all {
		if err := c.Enqueue(q); err != nil {
			tb.Fatal(err)
		}
	}
}

func wantStarted(tb testing.TB, rec *recorder, want ...int64) {
	tb.Helper()
	if got := rec.started(); !slices.Equal(got, want) {
		tb.Fatalf("started %v, want %v", got, want)
	}
}

func reason(tb testing.TB, c *Controller, run int64) string {
	tb.Helper()
	for _, w := range c.Snapshot().Queued {
		if w.RunID == run {
			return w.Reason
		}
	}
	tb.Fatalf("run %d is not queued", run)
	return ""
}
