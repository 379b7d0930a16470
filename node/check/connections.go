package check

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/proxy/tunnel"
)

// dialPatience is what a target is given to answer.
const dialPatience = 10 * time.Second

// reaches connects to a target once, as the node would for a run.
func reaches(ctx context.Context, r reporter, name string, t reach.Target, as fmt.Stringer) {
	dialer := net.Dialer{Timeout: dialPatience}
	c, err := dialer.DialContext(ctx, t.Kind, t.Address)
	if err != nil {
		r.fail(name, "start it, let this machine connect to it, or correct its address", "%s cannot be reached from this machine: %v", t, err)
		return
	}
	c.Close()
	r.ok(name, "%s takes connections, and runs find it as %s", t, as)
}

// service looks at what a service stands for.
func service(s reach.Service) func(context.Context, func(Result)) error {
	return func(ctx context.Context, report func(Result)) error {
		reaches(ctx, reporter(report), "", s.Target, s.At)
		return nil
	}
}

// sshTunnel makes a tunnel and a connection through it.
func sshTunnel(t config.Tunnel) func(context.Context, func(Result)) error {
	return func(ctx context.Context, report func(Result)) error {
		r := reporter(report)
		if err := tunnel.Check(ctx, t.Config); err != nil {
			what, fix := cutAt(err.Error(), ": ")
			r.fail("", "correct ssh-tunnels, or what it names", "%s: %s", what, fix)
			return nil
		}
		r.ok("", "%s connects to %s, and runs find it as %s", t.Server, t.Dest, t.At)
		return nil
	}
}
