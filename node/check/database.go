package check

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/reach"
)

// database looks at a database as a run would be given it.
func database(d config.Database, services ...reach.Service) func(context.Context, func(Result)) error {
	return func(ctx context.Context, report func(Result)) error {
		r := reporter(report)
		m, err := node.Database(d).Mount()
		if err != nil {
			what, fix := cutAt(err.Error(), ": ")
			r.fail("", fix, "%s", what)
			return nil
		}
		if m == nil {
			network(ctx, r, d, services)
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

// network connects to a database as the node would for a run.
func network(ctx context.Context, r reporter, d config.Database, services []reach.Service) {
	if len(d.Endpoints) == 0 {
		r.skip("", "its uri does not tell a host and a port, so that runs get no connection")
		return
	}
	for _, at := range d.Endpoints {
		if slices.ContainsFunc(services, func(s reach.Service) bool { return s.At == at }) {
			r.skip("", "%s is looked at among the connections", at)
			continue
		}
		reaches(ctx, r, "", reach.Target{Kind: reach.TCP, Address: at.String()}, at)
	}
}
