package check

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/runtime"
)

// subordinate looks for what the user namespace of a node without root needs.
func subordinate(_ context.Context, report func(Result)) error {
	r := reporter(report)
	unable, ids := userns.Require(), userns.RequireIDs()
	if unable == nil && ids == nil {
		r.ok("", "65536 each, with newuidmap and newgidmap to map them")
	}
	// They say all that is missing, one a line.
	for what, fix := range missing(unable) {
		r.fail("", fix, "%s", what)
	}
	for what, fix := range missing(ids) {
		r.warn("", fix, "%s; without, all algorithms run as this one user (docs/rootless.md)", what)
	}
	return nil
}

// missing are the lines of an error, each with the cure that it names.
func missing(err error) iter.Seq2[string, string] {
	return func(yield func(what, fix string) bool) {
		if err == nil {
			return
		}
		for line := range strings.Lines(err.Error()) {
			if !yield(cutAt(strings.TrimPrefix(strings.TrimSpace(line), userns.ErrUnable.Error()+": "), ": ")) {
				return
			}
		}
	}
}

// delegation looks whether a node of a normal user may make control groups. On
// cgroup v2 it goes into a scope of the user's systemd by itself.
func (o Options) delegation(version int, r reporter) {
	base := ""
	if o.Config != nil {
		base = o.Config.Cgroup
	}
	d, err := runtime.FindDelegation(base, os.Getpid())
	if err == nil {
		r.ok("", "version %d, delegated to user %d at %s", version, os.Geteuid(), d.Base)
		return
	}
	if version == 1 {
		r.fail("", fmt.Sprintf("have root make a control group for user %d, and name it as resources.cgroup (docs/rootless.md has the commands)", os.Geteuid()),
			"version 1, and %v", err)
		return
	}
	have, of, managed := ofUser("/sys/fs/cgroup", os.Geteuid())
	switch {
	case !managed || base != "":
		r.fail("", "start v6node in a session of the user's systemd, or name a delegated group as resources.cgroup (docs/rootless.md)", "version 2, and %v", err)
	case len(have) > 0:
		r.fail("", "write `[Service]`, `Delegate=cpu cpuset io memory pids` to /etc/systemd/system/user@.service.d/delegate.conf as root, run `systemctl daemon-reload`, and log out and in",
			"version 2, and %s is without %s", of, strings.Join(have, ", "))
	default:
		r.ok("", "version 2, delegated to %s, below which the node has a scope", of)
	}
}

// ofUser returns the controllers that a user's systemd lacks; managed says that
// there is one.
func ofUser(root string, uid int) (missing []string, group string, managed bool) {
	group = fmt.Sprintf("user.slice/user-%d.slice/user@%d.service", uid, uid)
	b, err := os.ReadFile(filepath.Join(root, group, "cgroup.controllers"))
	if err != nil {
		return nil, group, false
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(strings.Fields(string(b)), c) {
			missing = append(missing, c)
		}
	}
	return missing, group, true
}
