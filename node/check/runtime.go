package check

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/v6node/v6node/runtime"
)

// Runtime looks at a container runtime: whether it answers as one, and what it
// cannot do that others can.
func Runtime(endpoint, handler string) Check {
	return func(ctx context.Context, report func(Result)) (err error) {
		const group = "runtime"
		rt, err := runtime.Dial(ctx, endpoint, runtime.Options{})
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var e *runtime.Error
			if !errors.As(err, &e) {
				return err
			}
			// Such an error ends with what to do.
			what, fix := cutLast(err.Error())
			report(Result{Group: group, Name: "endpoint", Status: Fail, Detail: what, Fix: fix})
			return nil
		}
		defer func() { err = errors.Join(err, rt.Close()) }()
		events := rt.SendsEvents(ctx)
		i := rt.Info()
		report(Result{Group: group, Name: "endpoint", Status: OK, Detail: fmt.Sprintf("%s %s, CRI %s, at %s", i.Name, i.Version, i.APIVersion, i.Endpoint)})
		report(Result{Group: group, Name: "control groups", Status: OK, Detail: fmt.Sprintf("version %d, driver %s", i.CgroupVersion, i.CgroupDriver)})
		for _, f := range []struct {
			name        string
			has         bool
			detail, fix string
		}{
			{"seccomp", i.Seccomp, "the kernel does not filter system calls", "use a kernel with CONFIG_SECCOMP_FILTER"},
			{"cgroup driver told", i.TellsDriver, "the runtime does not tell its cgroup driver, so it is read from its configuration",
				"use containerd 2.0 or newer, or CRI-O 1.28 or newer"},
			{"recursive read-only mounts", i.RecursiveReadOnly(handler), "mounts below a database's directory keep their own mode inside the container",
				"use containerd 2.0 or newer, or CRI-O 1.30 or newer, on Linux 5.12 or newer; or have no mounts below a database's directory"},
			{"events", events, "the runtime sends no events, so the node looks for ends of containers every second",
				"CRI-O: enable_pod_events = true, which v6node cni install --runtime crio writes; containerd: use 1.7 or newer"},
			{"devices by CDI", i.CDI, "the runtime gives no devices by CDI, so limits.devices cannot be used",
				"use containerd 1.7 or newer with enable_cdi = true, or CRI-O"},
		} {
			r := Result{Group: group, Name: f.name, Status: OK}
			if !f.has {
				r.Status, r.Detail, r.Fix = Warn, f.detail, f.fix
			}
			report(r)
		}
		return nil
	}
}

// cutLast parts a sentence at its last semicolon, behind which errors say what
// to do.
func cutLast(s string) (what, fix string) {
	if i := strings.LastIndex(s, "; "); i > 0 {
		return s[:i], s[i+2:]
	}
	return s, ""
}
