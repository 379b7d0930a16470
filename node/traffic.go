package node

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/audit"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/proxy/forward"
)

const (
	// noteTraffic is how often it is written down what a run's connections have carried.
	noteTraffic = 10 * time.Second
	// settleTraffic bounds how long the connections of an ended algorithm are waited for.
	settleTraffic = time.Second
	// maxWeb is how many hosts and ports behind the whitelist's proxy a run has counters for.
	maxWeb = 64
)

// traffic is what the connections of one run have carried, over restarts of the node.
type traffic struct {
	mu     sync.Mutex
	ways   []way
	partly bool // a part of it may not have been counted
}

// way is one of them.
type way struct {
	ledger.Connection
	meter *forward.Meter
}

// keptTraffic is the note of it. One that was not made at the node's orderly end may be
// older than what was carried.
type keptTraffic struct {
	Whole bool                `json:"whole"`
	Ways  []ledger.Connection `json:"ways"`
}

// trafficOf returns a run's traffic, nil for a run that was never prepared.
func (n *Node) trafficOf(runID int64) *traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.carried[runID]
}

// beginTraffic makes what counts a run's connections, or goes on with what an earlier start
// or attempt has counted.
func (n *Node) beginTraffic(runID int64) *traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.carried[runID]; t != nil {
		return t
	}
	t := &traffic{}
	n.carried[runID] = t
	text, err := os.ReadFile(n.files.Open(runID).TrafficFile())
	if os.IsNotExist(err) {
		return t // a new run
	}
	var kept keptTraffic
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		n.log.Warn("what the connections of a run have carried before is not known", "run", runID, "error", err)
	}
	t.partly = err != nil || !kept.Whole
	for _, c := range kept.Ways {
		t.ways = append(t.ways, way{c, forward.NewMeter(c.Count)})
	}
	return t
}

func (n *Node) endTraffic(runID int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.carried, runID)
}

// meter returns the counter of a connection.
func (t *traffic) meter(at, kind, target string) *forward.Meter {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.find(at, kind, target)
}

// find returns the counter of a connection. Callers hold the lock.
func (t *traffic) find(at, kind, target string) *forward.Meter {
	for _, w := range t.ways {
		if w.At == at && w.Kind == kind && w.Target == target {
			return w.meter
		}
	}
	w := way{ledger.Connection{At: at, Kind: kind, Target: target}, new(forward.Meter)}
	t.ways = append(t.ways, w)
	return w.meter
}

// web returns the counter of what goes to a host and port through the whitelist's proxy, or for "" nowhere.
func (t *traffic) web(target string) *forward.Meter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if target == "" || !t.room(target) {
		target = webOthers
	}
	return t.find(reach.WebAt.String(), kindWeb, target)
}

// room tells whether a host and port behind the whitelist's proxy has a counter of its own, or may get one. Callers hold
// the lock.
func (t *traffic) room(target string) bool {
	n := 0
	for _, w := range t.ways {
		if w.Kind != kindWeb || w.Target == webOthers {
			continue
		}
		if n++; w.Target == target {
			return true
		}
	}
	return n < maxWeb
}

// counts are what was carried so far.
func (t *traffic) counts() []ledger.Connection {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out, others []ledger.Connection
	for _, w := range t.ways {
		c := w.Connection
		c.Count, c.AtLeast = w.meter.Count(), t.partly
		if c.Kind == kindWeb && c.Target == webOthers {
			others = append(others, c)
			continue
		}
		out = append(out, c)
	}
	return append(out, others...)
}

// settle waits until an ended algorithm's connections are closed, so that their last bytes
// are counted.
func (t *traffic) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTraffic)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		open := int64(0)
		for _, c := range t.counts() {
			open += c.Open
		}
		if open == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// keepTraffic writes down what a living run's connections carry, until ctx ends.
func (n *Node) keepTraffic(ctx context.Context, runID int64) {
	tick := time.NewTicker(noteTraffic)
	defer tick.Stop()
	for {
		n.noteTraffic(runID, false)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// stopTraffic writes down what the connections of all runs have carried when no more can come.
func (n *Node) stopTraffic() {
	n.mu.Lock()
	var ids []int64
	for id := range n.carried {
		ids = append(ids, id)
	}
	n.mu.Unlock()
	for _, id := range ids {
		n.noteTraffic(id, true)
	}
}

func (n *Node) noteTraffic(runID int64, whole bool) {
	t := n.trafficOf(runID)
	if t == nil {
		return
	}
	kept := keptTraffic{Whole: whole, Ways: t.counts()}
	for _, c := range kept.Ways {
		kept.Whole = kept.Whole && !c.AtLeast
	}
	ws := n.files.Open(runID)
	err := writeNote(ws.TrafficFile(), kept)
	if os.IsNotExist(err) {
		return // the run is over
	}
	if err != nil {
		n.log.Warn("what the connections of a run carry could not be written down; it is known until the node ends", "run", runID, "error", err)
	}
}

// writeNote replaces a small file by a value in JSON.
func writeNote(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	next := path + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// Kinds of connections that have no target of their own.
const (
	kindAPI = "vantage6"  // the vantage6 API
	kindWeb = "whitelist" // the HTTP proxy
)

// webOthers is the target under which stands what the whitelist's proxy refuses, and what goes to more hosts than have
// counters of their own.
const webOthers = audit.Others

// apiAt is how runs name the vantage6 API.
func (n *Node) apiAt() string {
	return hostport.Pair{Host: engine.ProxyHost, Port: n.cfg.Proxy.Port}.String()
}

// shownConnections are what a run can connect to, with what was carried.
func (n *Node) shownConnections(rec *ledger.Record) []admin.Connection {
	list := rec.Connections
	if !rec.State.Final() {
		list = n.trafficOf(rec.RunID).counts()
	}
	var out []admin.Connection
	for _, c := range list {
		out = append(out, admin.Connection{
			At: c.At, Kind: c.Kind, Target: c.Target, Connections: c.Connections, Failed: c.Failed, Open: c.Open,
			Sent: c.Sent, Received: c.Received, AtLeast: c.AtLeast,
		})
	}
	return out
}

// recorded is the same for the audit log.
func recorded(list []ledger.Connection) (out []audit.Connection) {
	for _, c := range list {
		out = append(out, audit.Connection{
			At: c.At, Kind: c.Kind, Target: c.Target, Connections: c.Connections, Failed: c.Failed,
			Sent: c.Sent, Received: c.Received, AtLeast: c.AtLeast,
		})
	}
	return out
}
