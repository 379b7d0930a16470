package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/node/kubelet"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/runtime/embedded"
)

// Runtime looks at a container runtime: whether it answers as one, and what it
// cannot do that others can.
func Runtime(endpoint, handler string) Check {
	return Check{Group: groupRuntime, Name: "endpoint", Look: func(ctx context.Context, report func(Result)) error {
		return withRuntime(ctx, endpoint, func(rt *runtime.Client) error {
			events := rt.SendsEvents(ctx)
			i := rt.Info()
			r := reporter(report)
			r.ok("", "%s %s, CRI %s, at %s", i.Name, i.Version, i.APIVersion, i.Endpoint)
			if err := rt.Ready(ctx); err != nil {
				what, fix := cutLast(err.Error())
				r.fail("ready", fix, "%s", what)
			} else {
				r.ok("ready", "runtime and network are")
			}
			r.ok("control groups", "version %d, driver %s", i.CgroupVersion, i.CgroupDriver)
			handlerResult(r, i, handler)
			for _, f := range features(i, handler, events) {
				if f.has {
					r.ok(f.name, "")
				} else {
					r.warn(f.name, f.fix, "%s", f.detail)
				}
			}
			return nil
		})
	}}
}

// withRuntime speaks to a runtime whose network may be missing.
func withRuntime(ctx context.Context, endpoint string, f func(*runtime.Client) error) (err error) {
	rt, err := runtime.Dial(ctx, endpoint, runtime.Options{AllowNotReady: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	return f(rt)
}

// ask speaks to the runtime, if it answers: that it does not is said by Runtime.
func (o Options) ask(ctx context.Context, report func(Result), f func(*runtime.Client) error) error {
	answered := false
	err := withRuntime(ctx, o.Endpoint, func(rt *runtime.Client) error {
		answered = true
		return f(rt)
	})
	if err != nil && !answered && ctx.Err() == nil {
		reporter(report).skip("", "the runtime does not answer")
		return nil
	}
	return err
}

func handlerResult(r reporter, i runtime.Info, handler string) {
	var names []string
	for _, h := range i.Handlers {
		if h.Name != "" {
			names = append(names, h.Name)
		}
	}
	switch {
	case handler == "":
		r.ok("handler", "the runtime's default")
	case len(names) == 0:
		r.skip("handler", "the runtime does not tell its handlers, so whether %q is one shows at the first run", handler)
	case !slices.Contains(names, handler):
		r.fail("handler", "correct runtime.handler or --runtime-handler, or configure the handler at the runtime",
			"the runtime has no handler %q, it has %s", handler, strings.Join(names, ", "))
	default:
		r.ok("handler", "%s", handler)
	}
}

type feature struct {
	name        string
	has         bool
	detail, fix string
}

func features(i runtime.Info, handler string, events bool) []feature {
	all := []feature{
		{"cgroup driver told", i.TellsDriver, "the runtime does not tell its cgroup driver, so it is read from its configuration",
			"use containerd 2.0 or newer, or CRI-O 1.28 or newer"},
		{"recursive read-only mounts", i.RecursiveReadOnly(handler), "mounts below a database's directory keep their own mode inside the container",
			"use containerd 2.0 or newer, or CRI-O 1.30 or newer, on Linux 5.12 or newer; or have no mounts below a database's directory"},
		{"events", events, "the runtime sends no events, so the node looks for ends of containers every second",
			"CRI-O: enable_pod_events = true, which v6node cni install --runtime crio writes; containerd: use 1.7 or newer"},
		{"devices by CDI", i.CDI, "the runtime gives no devices by CDI, so limits.devices cannot be used",
			"use containerd 1.7 or newer with enable_cdi = true, or CRI-O"},
	}
	if userns.MachineRoot() { // else there is one for all
		all = append(all, feature{"user namespaces", i.UserNamespaces(handler), "an algorithm's root is the machine's root without capabilities",
			"use containerd 2.0 or newer, or CRI-O 1.25 or newer, with runc 1.2 or newer, on Linux 6.3 or newer"})
	}
	return all
}

// bundle looks whether the containerd beside v6node is the one that it was made
// for.
func (o Options) bundle(ctx context.Context, report func(Result)) error {
	return o.ask(ctx, report, func(rt *runtime.Client) error {
		have, want := strings.TrimPrefix(rt.Info().Version, "v"), embedded.WantVersion()
		if have != want {
			reporter(report).warn("", "build the bundle again with `make bundle`", "the node's own containerd is %s, and this v6node was made for %s", have, want)
			return nil
		}
		reporter(report).ok("", "containerd %s, as this v6node was made for", have)
		return nil
	})
}

// noRuntime says why there is none to speak to.
func (o Options) noRuntime(_ context.Context, report func(Result)) error {
	if o.Cannot != nil {
		what, fix := cutAt(o.Cannot.Error(), ": ")
		reporter(report).fail("", fix, "%s", what)
		return nil
	}
	reporter(report).skip("", "its programs are there, and the node starts it in a user namespace of its own")
	return nil
}

// kubelet looks whether the runtime is a kubelet's.
func (o Options) kubelet(ctx context.Context, report func(Result)) error {
	r := reporter(report)
	return o.ask(ctx, report, func(rt *runtime.Client) error {
		sign, err := kubelet.Sign(ctx, rt, o.Endpoint)
		if err != nil {
			return err
		}
		if sign != "" {
			r.fail("", kubelet.Fix, "%v (%s)", kubelet.ErrFound, sign)
			return nil
		}
		if file := kubelet.Configured(o.Endpoint); file != "" {
			r.warn("", "if this machine is to stay out of Kubernetes, run `systemctl disable --now kubelet` and remove the file; else give v6node a runtime of its own",
				"%s names this runtime: a kubelet that is started would remove the node's sandboxes", file)
			return nil
		}
		left, err := kubelet.Left(ctx, rt)
		if err != nil {
			return err
		}
		if left > 0 {
			r.warn("", fmt.Sprintf("if no kubelet comes back, remove them: crictl -r %s rmp ID", o.Endpoint), "%d ended pods of a kubelet are left", left)
			return nil
		}
		r.ok("", "none uses this runtime")
		return nil
	})
}

// network looks whether new sandboxes get the node's network, as far as files
// tell. Only a sandbox can tell for certain.
func (o Options) network(ctx context.Context, report func(Result)) error {
	r := reporter(report)
	return o.ask(ctx, report, func(rt *runtime.Client) error {
		i := rt.Info()
		if i.CNIConfDir == "" {
			r.skip("", "the runtime does not tell where its networks are; --run-tests shows which one a sandbox gets")
			return nil
		}
		l := cni.Layout{ConfDir: i.CNIConfDir}
		if len(i.CNIBinDirs) > 0 {
			l.BinDir = i.CNIBinDirs[0]
		}
		if i.NetworkDropIns {
			l.CRIO = &cni.CRIO{}
		}
		found, err := cni.Inspect(l)
		if err != nil {
			return err
		}
		// Problems end with what to do.
		for _, p := range found.Problems {
			what, fix := cutLast(p)
			switch {
			case found.Effective:
				r.warn("", fix, "%s", what)
			case i.NetworkDropIns: // which may be elsewhere
				r.warn("", fix+"; if this runtime looks elsewhere, --run-tests shows which network a sandbox gets", "%s", what)
			default:
				r.fail("", fix, "%s", what)
			}
		}
		if len(found.Problems) == 0 {
			r.ok("", "new sandboxes get v6node's, by %s", found.Conf.Path)
		}
		return nil
	})
}
