package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/proxy/egress"
	"github.com/v6node/v6node/proxy/forward"
	"github.com/v6node/v6node/proxy/tunnel"
)

// planFor decides what a run can connect to, of these databases and otherwise.
func (n *Node) planFor(ctx context.Context, rec *ledger.Record, r *server.Run, databases []config.Database) (*reach.Plan, error) {
	web, err := n.whitelistFor(ctx, r)
	if err != nil {
		return nil, err
	}
	var all []reach.Database
	for _, d := range databases {
		all = append(all, reach.Database{Label: d.Label, Endpoints: d.Endpoints})
	}
	p, err := reach.Make(all, rec.Databases, n.cfg.Reachable(), web)
	if err != nil {
		return nil, refuse(ReasonStart, fmt.Errorf("the connections of the run cannot be planned: %w", err))
	}
	return p, nil
}

// whitelistFor is what the run may reach through the HTTP proxy.
func (n *Node) whitelistFor(ctx context.Context, r *server.Run) (egress.Rules, error) {
	rules := n.cfg.Whitelist.Rules
	rules.Pairs = slices.Clone(rules.Pairs)
	subject := n.subject(ctx, r)
	for _, some := range n.cfg.Whitelist.Some {
		yes, err := some.Runs.Picks(&subject)
		if err != nil {
			return egress.Rules{}, unlessImage(ReasonStart, fmt.Errorf("an entry of whitelist.pairs could not be applied: %w", err))
		}
		if yes {
			rules.Pairs = append(rules.Pairs, some.Pairs...)
		}
	}
	return rules, nil
}

// doors serve a plan. One gate bounds the run's connections, whichever door they
// come through, and each counts what it carries.
func (n *Node) doors(rec *ledger.Record, plan *reach.Plan, t *traffic) ([]engine.Door, error) {
	gate := forward.NewGate()
	log := n.log.With("run", rec.RunID, "task", rec.TaskID)
	var out []engine.Door
	for _, l := range plan.Links {
		f := &forward.Forward{
			Dial: n.dialler(l.Target), Target: l.Target.String(), Gate: gate, Log: log, Meter: t.meter(l.At.String(), l.Target.Kind, l.Target.Address),
		}
		out = append(out, engine.Door{Address: l.Listen, Serve: f.Serve})
	}
	if plan.Web != nil {
		list, err := egress.Compile(plan.Web.Rules)
		if err != nil {
			return nil, fmt.Errorf("the whitelist of the run cannot be read: %w", err)
		}
		t.web("") // shown before the first request
		p := egress.New(egress.Config{List: list, Gate: gate, Log: log, Meter: t.web})
		out = append(out, engine.Door{Address: plan.Web.Listen, Serve: p.Serve})
	}
	return out, nil
}

// dialler opens connections to a target, from the machine's own network.
func (n *Node) dialler(t reach.Target) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		if t.Kind != reach.Tunnel {
			return new(net.Dialer).DialContext(ctx, t.Kind, t.Address)
		}
		through := n.tunnels[t.Address]
		if through == nil {
			// Of a run that an earlier start began.
			return nil, fmt.Errorf("the configuration has no tunnel at %s any more: write it into ssh-tunnels again", t.Address)
		}
		return through.Dial(ctx)
	}
}

// newTunnels makes the tunnels of the configuration, which connect once they run.
func newTunnels(c *config.Config, log *slog.Logger) (map[string]*tunnel.Tunnel, error) {
	out := make(map[string]*tunnel.Tunnel)
	for _, t := range c.Tunnels {
		made, err := tunnel.New(t.Config, log)
		if err != nil {
			return nil, fmt.Errorf("%w: ssh-tunnels: %w", config.ErrInvalid, err)
		}
		out[t.At.String()] = made
	}
	return out, nil
}
