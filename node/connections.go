package node

import (
	"context"
	"fmt"
	"net"

	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/proxy/forward"
)

// planFor decides what a run can connect to.
func (n *Node) planFor(rec *ledger.Record) (*reach.Plan, error) {
	var all []reach.Database
	for _, d := range n.cfg.Databases {
		all = append(all, reach.Database{Label: d.Label, Endpoints: d.Endpoints})
	}
	p, err := reach.Make(all, rec.Databases, nil)
	if err != nil {
		return nil, refuse(ReasonStart, fmt.Errorf("plan the connections of the run: %w", err))
	}
	return p, nil
}

// doors serve a plan. One gate bounds the run's connections, whichever door they
// come through.
func (n *Node) doors(rec *ledger.Record, plan *reach.Plan) []engine.Door {
	gate := forward.NewGate()
	log := n.log.With("run", rec.RunID, "task", rec.TaskID)
	var out []engine.Door
	for _, l := range plan.Links {
		f := &forward.Forward{Dial: dialler(l.Target), Target: l.Target.String(), Gate: gate, Log: log}
		out = append(out, engine.Door{Address: l.Listen, Serve: f.Serve})
	}
	return out
}

// dialler opens connections to a target, from the machine's own network.
func dialler(t reach.Target) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, t.Kind, t.Address)
	}
}
