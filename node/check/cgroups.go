package check

import (
	"context"
	"strings"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/runtime"
)

// cgroups looks whether runs can be limited.
func (o Options) cgroups(m machine) func(context.Context, func(Result)) error {
	return func(_ context.Context, report func(Result)) error {
		version, missing, err := runtime.Controllers()
		if err != nil {
			return err
		}
		r := o.enforced(report)
		switch {
		case len(missing) > 0 && version == 1:
			r.fail("", "boot with cgroup_enable="+strings.Join(missing, " cgroup_enable=")+", and mount them below /sys/fs/cgroup",
				"version 1 without the controllers %s: runs cannot be limited", strings.Join(missing, ", "))
		case len(missing) > 0:
			r.fail("", "boot a kernel with these controllers (memory: without cgroup_disable=memory), or have them delegated to where v6node runs",
				"version 2 without the controllers %s: runs cannot be limited", strings.Join(missing, ", "))
		case m.rootless:
			o.delegation(version, r)
		default:
			r.ok("", "version %d with cpu, cpuset, memory and pids", version)
		}
		return nil
	}
}

// enforced makes warnings of failures where runs go on without limits.
func (o Options) enforced(report func(Result)) reporter {
	if o.Config == nil || o.Config.Enforce != config.EnforceBestEffort {
		return report
	}
	return func(r Result) {
		if r.Status == Fail {
			r.Status, r.Detail = Warn, r.Detail+"; resources.enforce is "+config.EnforceBestEffort+", so that they go on without"
		}
		report(r)
	}
}
