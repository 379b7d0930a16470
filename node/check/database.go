package check

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/config"
)

// dialPatience is what a service is given to answer.
const dialPatience = 10 * time.Second

// database looks at a database as a run would be given it.
func database(d config.Database) func(context.Context, func(Result)) error {
	return func(ctx context.Context, report func(Result)) error {
		r := reporter(report)
		m, err := node.Database(d).Mount()
		if err != nil {
			what, fix := cutAt(err.Error(), ": ")
			r.fail("", fix, "%s", what)
			return nil
		}
		if m == nil {
			service(ctx, r, d)
			return nil
		}
		info, err := os.Stat(m.Host)
		if err != nil {
			return err
		}
		note := ""
		others := os.FileMode(0o4)
		if info.IsDir() {
			others = 0o5
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().Perm()&others != others {
			note = fmt.Sprintf("; only by algorithms that run as user %d or in group %d (mode %04o)", st.Uid, st.Gid, info.Mode().Perm())
		}
		r.ok("", "%s can be read, and is %s in the container%s", m.Host, m.Container, note)
		return nil
	}
}

// service connects to a database as the node would for a run.
func service(ctx context.Context, r reporter, d config.Database) {
	if len(d.Endpoints) == 0 {
		r.skip("", "its uri does not tell a host and a port, so that runs get no connection")
		return
	}
	dialer := net.Dialer{Timeout: dialPatience}
	for _, at := range d.Endpoints {
		c, err := dialer.DialContext(ctx, "tcp", at.String())
		if err != nil {
			r.fail("", "start it, let this machine connect to it, or correct its uri", "%s cannot be reached from this machine: %v", at, err)
			continue
		}
		c.Close()
		r.ok("", "%s takes connections, and runs that ask for it reach it under this name", at)
	}
}
