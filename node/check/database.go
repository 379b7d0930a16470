package check

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/config"
)

// database looks at a database as a run would be given it.
func database(d config.Database) func(context.Context, func(Result)) error {
	return func(_ context.Context, report func(Result)) error {
		r := reporter(report)
		m, err := node.Database(d).Mount()
		if err != nil {
			what, fix := cutAt(err.Error(), ": ")
			r.fail("", fix, "%s", what)
			return nil
		}
		if m == nil {
			r.skip("", "a service, which runs cannot reach in this version")
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
