package admission

import "time"

// EventKind says what happened.
type EventKind string

// The kinds of events. Those from Paused on concern no run.
const (
	Queued        EventKind = "queued"
	Admitted      EventKind = "admitted"
	Restored      EventKind = "restored" // counted as running after a restart
	Refused       EventKind = "refused"
	Left          EventKind = "left" // the queue, without having been admitted
	Released      EventKind = "released"
	Updated       EventKind = "updated"
	Paused        EventKind = "paused"
	Resumed       EventKind = "resumed"
	BudgetChanged EventKind = "budget"
)

// Event is one change.
type Event struct {
	Kind   EventKind
	RunID  int64
	Time   time.Time
	Waited time.Duration // for Admitted: since the arrival
	Err    error         // for Refused: the sentence
}

// Counters count since the controller was made.
type Counters struct {
	Enqueued   int64 `json:"enqueued"`
	Admitted   int64 `json:"admitted"`   // without restored ones
	Backfilled int64 `json:"backfilled"` // admitted before a run whose turn it was and that did not fit
	Restored   int64 `json:"restored"`
	Refused    int64 `json:"refused"`
	Left       int64 `json:"left"`
	Released   int64 `json:"released"`
	Stalls     int64 `json:"stalls"` // subtasks refused because all runs waited
}

func (c *Controller) tell(kind EventKind, r *run, err error) {
	if c.opt.OnEvent == nil {
		return
	}
	e := Event{Kind: kind, Time: time.Now(), Err: err}
	if r != nil {
		e.RunID = r.RunID
		if kind == Admitted {
			e.Waited = e.Time.Sub(r.Arrived)
		}
	}
	c.opt.OnEvent(e)
}
