// Package boot puts a node together from its configuration: state directory,
// runtime (an existing one, or the managed containerd), session, engine. What
// it makes it also ends, in the reverse order.
package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/health"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/kubelet"
	"github.com/v6node/v6node/node/metrics"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/runtime/embedded"
)

// ErrRuntime marks a container runtime that cannot be used.
var ErrRuntime = errors.New("the container runtime cannot be used")

var errEnded = errors.New("report this as a defect")

// endTime bounds what is done after the node was asked to stop.
const endTime = 30 * time.Second

const (
	// askRuntimeEvery is how long the runtime's word on its readiness counts.
	askRuntimeEvery = 5 * time.Second
	// listAllowance is far more than a call to the runtime may take.
	listAllowance = 5 * time.Minute
)

// Options come from the command line.
type Options struct {
	Config *config.Config
	// Load reads the configuration again as Config was read; nil where there is no file.
	Load func() (*config.Config, []config.Warning, error)
	// Version goes into the User-Agent.
	Version string
	// BundleDirs are where the managed containerd's programs may be.
	BundleDirs []string
	// PluginBinary is the CNI plugin for the managed containerd.
	PluginBinary string
	Log          *slog.Logger
	// Stop is what becomes of living runs when the node is asked to stop.
	Stop node.StopMode
	// Passport is what Enter gave to this process, nil for a node of root.
	Passport *userns.Passport
}

// Run runs a node until ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	cfg := o.Config
	if err := checkLimits(ctx, cfg, engine.Machine(), o.Log); err != nil {
		return err
	}
	state, err := node.OpenState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	limited := o.cgroups(ctx)

	api, err := server.NewV4(server.Config{
		URL: cfg.Server.URL, Port: cfg.Server.Port, APIPath: cfg.Server.APIPath, CAFile: cfg.Server.CAFile,
		APIKey: cfg.APIKey.Reveal(), PollInterval: cfg.PollInterval, Version: o.Version, Log: o.Log,
	})
	if err != nil {
		return err
	}
	defer api.Close()

	asked := ctx
	ctx, lost := context.WithCancel(ctx)
	defer lost()
	// Supervision outlives the node's own end, which still needs the runtime.
	supervised, release := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	defer func() {
		release()
		err = errors.Join(err, g.Wait())
	}()
	endpoint := cfg.Runtime.Endpoint
	var content *embedded.Content // CRI has no calls for it
	if endpoint == "" {
		managed, startErr := startManaged(ctx, o, limited.NoCgroups)
		if startErr != nil {
			return errors.Join(unlessAsked(asked, o.Log, startErr), abandon(o))
		}
		var ending atomic.Bool // supervision ends with what it watches over
		g.Go(func() error {
			err := managed.Run(supervised)
			if supervised.Err() != nil || ending.Load() {
				return err
			}
			lost() // nobody would start a containerd that ends
			return fmt.Errorf("watching over the node's own containerd ended unexpectedly: %w", cmp.Or(err, errEnded))
		})
		defer func() {
			ending.Store(true)
			err = errors.Join(err, endManaged(o, managed))
		}()
		endpoint = managed.Endpoint()
		if content, err = embedded.OpenContent(endpoint); err != nil {
			return fmt.Errorf("%w: %w", ErrRuntime, err)
		}
		defer func() { err = errors.Join(err, content.Close()) }()
	}
	rt, err := runtime.Dial(ctx, endpoint, limited)
	if err != nil {
		return unlessAsked(asked, o.Log, fmt.Errorf("%w: %w", ErrRuntime, err))
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	if cfg.Runtime.Endpoint != "" {
		if err := kubelet.Refuse(ctx, rt, endpoint); err != nil {
			return unlessAsked(asked, o.Log, fmt.Errorf("%w: %w", ErrRuntime, err))
		}
	}
	g.Go(func() error { rt.SendsEvents(supervised); return nil }) // so that `v6node info` can tell
	info := rt.Info()
	o.Log.InfoContext(ctx, "connected to the container runtime", "endpoint", endpoint, "name", info.Name, "version", info.Version,
		"cgroup_driver", info.CgroupDriver, "cgroup_version", info.CgroupVersion)
	if have, want := strings.TrimPrefix(info.Version, "v"), embedded.WantVersion(); cfg.Runtime.Endpoint == "" && have != want {
		o.Log.WarnContext(ctx, "the node's own containerd has another version than this v6node was made for: build the bundle again with `make bundle`", "has", have, "wants", want)
	}

	access := Access(cfg)
	resolver := image.New(image.Options{
		Access: access, MirrorLogins: info.Name == "containerd", OwnMirrors: cfg.Runtime.Endpoint != "", Local: node.LocalImages(rt), RequirePull: cfg.Policies.RequirePull, UserAgent: "v6node/" + o.Version,
	})
	defer func() { err = errors.Join(err, resolver.Close()) }()
	store, err := openSIF(ctx, cfg, access, content, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	sifs := image.SIFOptions{Store: store, Log: o.Log}
	if content != nil {
		sifs.Shed = content.Shed
	}
	files := image.NewSIF(sifs)
	users, err := engine.NewUsers(engine.UserMode(cfg.Runtime.UserNS), state.Instance, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	monitor := health.New(nil)
	monitor.Require("runtime", health.Cached(answers(rt.Ready), askRuntimeEvery))
	n, err := node.New(node.Options{
		Config: cfg, State: state, API: api, Log: o.Log, Images: rt, Health: monitor,
		Resolver: image.Schemes{imageref.Container: &image.Imports{Images: Imported(cfg), Serve: store, Others: resolver}, imageref.SIF: files, imageref.ORAS: files},
		Caches:   []node.Cache{files},
		Engine:   engine.NewCRI(rt, state.Instance, cfg.Runtime.Handler, users, monitor.Loop("runtime", listAllowance), o.Log),
		Version:  o.Version,
		Stop:     o.Stop,
		Reload:   o.reload(ctx),
		Applied:  func(c *config.Config) { resolver.SetRequirePull(c.Policies.RequirePull) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	socket, err := admin.Listen(state.Dir)
	if err != nil {
		return err
	}
	// The administrator is answered as long as the node has a runtime, also
	// while it waits for its server and while it stops.
	served := admin.NewServer(admin.ServerOptions{Version: o.Version, Log: o.Log, Changed: n.Steered, Station: n.Station(node.About{
		Version: o.Version, Server: cfg.Server.Base().String(), Managed: cfg.Runtime.Endpoint == "", Runtime: rt.Info,
	})})
	answering, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	working, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	beside := guarded{fail: fail}
	defer func() {
		hangUp()
		err = errors.Join(err, beside.g.Wait())
	}()
	beside.serve(answering, "the administrator's socket", func(ctx context.Context) error { return served.Serve(ctx, socket) })
	signals, release := notifyHangUp()
	defer release()
	beside.serve(answering, "reloading", func(ctx context.Context) error { return hangUps(ctx, n, signals, o.Log) })
	if !cfg.Metrics.IsZero() {
		listener, err := metrics.Listen(cfg.Metrics)
		if err != nil {
			return err
		}
		o.Log.InfoContext(ctx, "metrics and health are served", "at", cfg.Metrics.String())
		watched := metrics.NewServer(metrics.Options{Recorder: n.Recorder(), Source: n, Health: monitor, Version: o.Version, Log: o.Log})
		beside.serve(answering, "the metrics", func(ctx context.Context) error { return watched.Serve(ctx, listener) })
	}
	if manager := systemd(monitor, n, n.WindingDown, o.Log); manager != nil {
		beside.serve(answering, "the service manager's news", func(ctx context.Context) error { return manager.run(ctx, working.Done()) })
	}
	return n.Run(working)
}

// unlessAsked is the error of a step of the start, and none where the node was asked to
// stop meanwhile: a service manager would take that for a failure.
func unlessAsked(asked context.Context, log *slog.Logger, err error) error {
	if asked.Err() == nil {
		return err
	}
	log.Info("asked to stop while the node was starting", "cut off", err)
	return nil
}

// answers says it plainly when a runtime does not answer in time.
func answers(ready func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := ready(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return errors.New("the container runtime does not answer: look at its log")
		}
		return err
	}
}

func startManaged(ctx context.Context, o Options, noCgroups bool) (*embedded.Containerd, error) {
	bundle, err := embedded.FindBundle(o.BundleDirs...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRuntime, err)
	}
	began := time.Now()
	d, err := embedded.Start(ctx, embedded.Config{
		Root:   filepath.Join(o.Config.StateDir, node.ManagedStore),
		State:  filepath.Join(o.Config.StateDir, "containerd-state"),
		Bundle: bundle, PluginBinary: o.PluginBinary,
		CNIConfList: cni.ConfList(), CNIConfName: cni.ConfName, Handlers: ulimitHandlers(o.Config),
		Log: o.Log, NoCgroups: noCgroups, CertsDirs: o.Config.RegistryAccess.CertsDirs,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRuntime, err)
	}
	o.Log.InfoContext(ctx, "the node's own containerd is ready", "took", time.Since(began).Round(time.Millisecond))
	return d, nil
}

// endManaged stops the managed containerd if no sandbox lives, else leaves it
// to the next start, and so with the namespace that it is in.
func endManaged(o Options, d *embedded.Containerd) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	stopped, err := d.Stop(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("stop the node's own containerd: %w", err), d.Detach())
	}
	if !stopped {
		o.Log.Info("algorithms still run: the node's own containerd stays, and the next start of the node takes them over")
		return d.Detach()
	}
	if o.Passport == nil {
		return nil
	}
	if err := o.Passport.End(ctx); err != nil {
		return fmt.Errorf("end the node's user namespace: %w", err)
	}
	return nil
}

// BundleDirs are the places where an installation or a checkout keeps the
// managed containerd's programs, the most specific first.
func BundleDirs(named string) []string {
	dirs := []string{named}
	if exe, err := os.Executable(); err == nil {
		bin := filepath.Dir(exe)
		dirs = append(dirs, filepath.Join(bin, "..", "libexec", "v6node"), filepath.Join(bin, "..", "bundle"))
	}
	return append(dirs, "/usr/libexec/v6node", "/usr/local/libexec/v6node")
}
