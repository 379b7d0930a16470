package server

import (
	"encoding/json"
	"sync"
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
	info   json.RawMessage
}

// outbox keeps what is to be sent over the socket until it can be. Putting never blocks.
type outbox struct {
	wake chan struct{} // capacity 1: there may be something to take

	mu       sync.Mutex
	seq      uint64
	info     *item // the latest only
	statuses []item
	logs     []item
	logBytes int
	dropped  int // logs and statuses, since the last report
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

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

func (o *outbox) putInfo(info json.RawMessage) {
	o.mu.Lock()
	o.seq++
	o.info = &item{seq: o.seq, info: info}
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
	info, status, log := none, none, none
	if o.info != nil {
		info = o.info.seq
	}
	if len(o.statuses) > 0 {
		status = o.statuses[0].seq
	}
	if len(o.logs) > 0 {
		log = o.logs[0].seq
	}
	switch first := min(info, status, log); {
	case first == none:
		return item{}, false
	case first == info:
		i := *o.info
		o.info = nil
		return i, true
	case first == status:
		i := o.statuses[0]
		o.statuses[0] = item{}
		o.statuses = o.statuses[1:]
		return i, true
	default:
		return o.popLog(), true
	}
}

// back puts an item that could not be sent where it was. There is one taker, so that it is older
// than all others.
func (o *outbox) back(i item) {
	o.mu.Lock()
	switch {
	case i.status != nil:
		o.statuses = append([]item{i}, o.statuses...)
	case i.log != nil:
		o.logs = append([]item{i}, o.logs...)
		o.logBytes += len(i.log.Log)
	case o.info == nil: // else a newer one has come
		o.info = &i
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
func (v *V4) EmitNodeInfo(info map[string]any) {
	b, err := json.Marshal(info) // now: the map is the caller's and may change
	if err != nil {
		v.log.Error("the node info cannot be sent as JSON", "error", err)
		return
	}
	v.out.putInfo(b)
}
