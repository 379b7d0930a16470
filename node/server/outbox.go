package server

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	maxStatuses = 10_000
	maxLogBytes = 1 << 20
	maxLogs     = 10_000
	// logPiece keeps one event far below the megabyte at which servers cut the connection, even
	// when every byte of it is escaped.
	logPiece = 64 << 10
)

// item is one thing to tell the server.
type item struct {
	seq    uint64
	status *StatusChange
	log    *LogChunk
	// Else it is the latest of its kind.
	kind latest
	body json.RawMessage
}

// latest is a kind of item of which only the newest counts.
type latest int

const (
	nodeInfo latest = iota
	nodeMetrics
	latestKinds
)

// event is the name under which the server knows it.
func (k latest) event() string {
	return [latestKinds]string{nodeInfo: "node_info_update", nodeMetrics: "node_metrics_update"}[k]
}

// outbox keeps what is to be sent over the socket until it can be. Putting never blocks.
type outbox struct {
	wake chan struct{} // capacity 1: there may be something to take

	mu       sync.Mutex
	seq      uint64
	latest   [latestKinds]*item
	statuses []item
	logs     []item
	logBytes int
	out      int64 // the run whose log is being sent, 0 for none
	way      map[int64]*way
	mute     bool // the server did not echo what a run waited for
	dropped  int  // logs and statuses, since the last report
}

// way is what was sent of a run's log and not echoed yet.
type way struct {
	pieces int
	empty  chan struct{} // closed when nothing is left
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1), way: make(map[int64]*way)} }

func (o *outbox) putStatus(s StatusChange) {
	o.mu.Lock()
	o.seq++
	o.statuses = append(o.statuses, item{seq: o.seq, status: &s})
	if len(o.statuses) > maxStatuses {
		o.statuses[0] = item{}
		o.statuses = o.statuses[1:]
		o.dropped++
	}
	o.mu.Unlock()
	o.ring()
}

func (o *outbox) putLatest(k latest, body json.RawMessage) {
	o.mu.Lock()
	o.seq++
	o.latest[k] = &item{seq: o.seq, kind: k, body: body}
	o.mu.Unlock()
	o.ring()
}

func (o *outbox) putLog(l LogChunk) {
	o.mu.Lock()
	for rest := l.Log; rest != ""; {
		n := min(len(rest), logPiece)
		for n < len(rest) && n > logPiece-utf8.UTFMax && !utf8.RuneStart(rest[n]) {
			n--
		}
		piece := l
		piece.Log, rest = rest[:n], rest[n:]
		o.seq++
		o.logs = append(o.logs, item{seq: o.seq, log: &piece})
		o.logBytes += n
		for o.logBytes > maxLogBytes || len(o.logs) > maxLogs {
			o.popLog()
			o.dropped++
		}
	}
	o.mu.Unlock()
	o.ring()
}

func (o *outbox) popLog() item {
	i := o.logs[0]
	o.logs[0] = item{}
	o.logs = o.logs[1:]
	o.logBytes -= len(i.log.Log)
	return i
}

// take returns the oldest item.
func (o *outbox) take() (item, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const none = ^uint64(0)
	status, log, newest, kind := none, none, none, nodeInfo
	for k, i := range o.latest {
		if i != nil && i.seq < newest {
			newest, kind = i.seq, latest(k)
		}
	}
	if len(o.statuses) > 0 {
		status = o.statuses[0].seq
	}
	if len(o.logs) > 0 {
		log = o.logs[0].seq
	}
	switch first := min(newest, status, log); {
	case first == none:
		return item{}, false
	case first == newest:
		i := *o.latest[kind]
		o.latest[kind] = nil
		return i, true
	case first == status:
		i := o.statuses[0]
		o.statuses[0] = item{}
		o.statuses = o.statuses[1:]
		return i, true
	default:
		i := o.popLog()
		o.out = i.log.RunID
		w := o.way[o.out]
		if w == nil {
			w = &way{empty: make(chan struct{})}
			o.way[o.out] = w
		}
		w.pieces++
		return i, true
	}
}

// echoed notes that the server has taken a piece of a run's log: it adds a piece to the log before
// it tells the collaboration of it.
func (o *outbox) echoed(runID int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mute = false
	o.arrivedLocked(runID)
}

func (o *outbox) arrivedLocked(runID int64) {
	w := o.way[runID]
	if w == nil {
		return // another node's, or forgotten
	}
	if w.pieces--; w.pieces == 0 {
		close(w.empty)
		delete(o.way, runID)
	}
}

// landed waits until the server has all pieces of a run's log that were sent, for so long at most.
// A server that has let one run wait in vain lets no other wait before it has echoed something.
func (o *outbox) landed(ctx context.Context, runID int64, most time.Duration) {
	o.mu.Lock()
	w, mute := o.way[runID], o.mute
	o.mu.Unlock()
	if w == nil {
		return
	}
	defer func() {
		o.mu.Lock()
		delete(o.way, runID)
		o.mu.Unlock()
	}()
	if mute {
		return
	}
	patience := time.NewTimer(most)
	defer patience.Stop()
	select {
	case <-w.empty:
	case <-ctx.Done():
	case <-patience.C:
		o.mu.Lock()
		o.mute = true
		o.mu.Unlock()
	}
}

// connected forgets what an earlier connection left on its way: it has arrived or never will.
func (o *outbox) connected() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.way {
		close(w.empty)
	}
	clear(o.way)
}

// forgetLogs drops a run's logs that wait. The server adds what comes to the run's log, also
// when that is whole already.
func (o *outbox) forgetLogs(runID int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.out == runID {
		o.out = 0 // not to come back
	}
	o.logs = slices.DeleteFunc(o.logs, func(i item) bool {
		if i.log.RunID != runID {
			return false
		}
		o.logBytes -= len(i.log.Log)
		return true
	})
}

// back puts an item that could not be sent where it was. There is one taker, so that it is older
// than all others.
func (o *outbox) back(i item) {
	o.mu.Lock()
	if i.log != nil {
		o.arrivedLocked(i.log.RunID) // it is not on its way
	}
	switch {
	case i.status != nil:
		o.statuses = append([]item{i}, o.statuses...)
	case i.log != nil && i.log.RunID != o.out: // it was forgotten meanwhile
	case i.log != nil:
		o.logs = append([]item{i}, o.logs...)
		o.logBytes += len(i.log.Log)
	case o.latest[i.kind] == nil: // else a newer one has come
		o.latest[i.kind] = &i
	}
	o.mu.Unlock()
	o.ring()
}

// lost returns, once, how many items had to be dropped.
func (o *outbox) lost() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.dropped
	o.dropped = 0
	return n
}

func (o *outbox) ring() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// EmitStatus implements API.
func (v *V4) EmitStatus(s StatusChange) { v.out.putStatus(s) }

// EmitLog implements API.
func (v *V4) EmitLog(l LogChunk) { v.out.putLog(l) }

// EmitNodeInfo implements API.
func (v *V4) EmitNodeInfo(info map[string]any) { v.emitLatest(nodeInfo, info) }

// EmitNodeMetrics implements API.
func (v *V4) EmitNodeMetrics(m map[string]any) { v.emitLatest(nodeMetrics, m) }

func (v *V4) emitLatest(k latest, m map[string]any) {
	b, err := json.Marshal(m) // now: the map is the caller's and may change
	if err != nil {
		v.log.Error("what the node tells of itself cannot be sent as JSON", "event", k.event(), "error", err)
		return
	}
	v.out.putLatest(k, b)
}
