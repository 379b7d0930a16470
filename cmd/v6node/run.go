package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/journal"
	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/boot"
	"github.com/v6node/v6node/node/config"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the node",
		Description: `Connects to the vantage6 server that the configuration names, and runs each task
that it offers in a sandbox beside the node's databases, until SIGINT or SIGTERM.

Without --cri-endpoint the node starts and supervises a containerd of its own.
Without --config it reads the only file in /etc/v6node, for a normal user in
~/.config/v6node. SIGHUP makes it read the configuration again, as v6node reload does.
Algorithms that run when the node stops go on, and its next start takes them over.
With --drain it stops when they have ended, with --stop-runs it stops them; a second
signal ends the program at once. Runs in the queue wait for the next start.

Examples:
   v6node run --config /etc/v6node/node.yaml
   v6node run --config node.yaml --cri-endpoint unix:///run/containerd/containerd.sock
   v6node run --config node.yaml --cri-endpoint unix:///var/run/crio/crio.sock
   v6node run --config node.yaml --memory 4g --cpus 2 --pids-limit 512 --timeout 12h`,
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			configFlag("read the configuration from `FILE` (the reference node's YAML is accepted)"),
			&cli.StringFlag{Name: "cri-endpoint", Usage: "use the container runtime at `unix:///PATH`; overrides runtime.endpoint", EnvVars: []string{"CONTAINER_RUNTIME_ENDPOINT"}},
			&cli.StringFlag{Name: "runtime-handler", Usage: "run algorithms with this `HANDLER` of the runtime; overrides runtime.handler"},
			&cli.StringFlag{Name: "userns", Usage: "give each algorithm a user namespace: `MODE` is auto (where possible), required or host (never); overrides runtime.userns"},
			&cli.PathFlag{Name: "state-dir", Usage: "keep ledger, runs and images in `DIR`; overrides state_dir"},
			&cli.PathFlag{Name: "bundle-dir", Usage: "find the managed containerd's programs in `DIR`", EnvVars: []string{"V6NODE_BUNDLE"}},
			&cli.BoolFlag{Name: "drain", Usage: "when asked to stop, begin nothing more and wait until all runs are over"},
			&cli.BoolFlag{Name: "stop-runs", Usage: "when asked to stop, stop all runs and tell the server"},
			&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` on: debug, info, warn or error; overrides logging.level"},
			&cli.StringFlag{Name: "log-format", Usage: "write the log as `FORMAT`: auto, text, journal or json; overrides logging.format"},
		}, limitFlags()...),
		Action: runNode,
	}
}

func runNode(c *cli.Context) error {
	pass, err := userns.Arrive()
	if err != nil {
		return err
	}
	file, err := configFile(c)
	if err != nil {
		return err
	}
	load := func() (*config.Config, []config.Warning, error) {
		cfg, warnings, err := config.Load(file)
		if err != nil {
			return nil, nil, err
		}
		if err := override(cfg, c); err != nil {
			return nil, nil, err
		}
		boot.Restore(cfg, pass)
		return cfg, warnings, nil
	}
	cfg, warnings, err := load()
	if err != nil {
		return err
	}
	stop := node.StopLeave
	switch {
	case c.Bool("drain") && c.Bool("stop-runs"):
		return cli.Exit("--drain waits for runs and --stop-runs stops them: use one of the two", exitUsage)
	case c.Bool("drain"):
		stop = node.StopDrain
	case c.Bool("stop-runs"):
		stop = node.StopKill
	}
	log := newLogger(cfg)
	plugin, err := pluginExecutable(c)
	if err != nil {
		return err
	}
	o := boot.Options{
		Config: cfg, Load: load, Version: c.App.Version, Log: log, Stop: stop, PluginBinary: plugin, Passport: pass,
		BundleDirs: boot.BundleDirs(c.Path("bundle-dir")),
	}
	args := os.Args[1:]
	if c.Path("config") == "" { // where the program begins anew it would look elsewhere
		args = append(slices.Clone(args), "--config", file)
	}
	if err := boot.Enter(c.Context, o, args); err != nil {
		return err
	}
	for _, w := range warnings {
		log.Warn(w.String())
	}
	return boot.Run(c.Context, o)
}

// override lets the command line win over the file.
func override(cfg *config.Config, c *cli.Context) error {
	for flag, field := range map[string]*string{
		"cri-endpoint": &cfg.Runtime.Endpoint, "runtime-handler": &cfg.Runtime.Handler, "state-dir": &cfg.StateDir,
	} {
		if c.IsSet(flag) {
			*field = c.String(flag)
		}
	}
	if c.IsSet("log-level") {
		if err := cfg.LogLevel.UnmarshalText([]byte(c.String("log-level"))); err != nil {
			return cli.Exit(fmt.Sprintf("--log-level %q is not a level: use debug, info, warn or error", c.String("log-level")), exitUsage)
		}
	}
	if c.IsSet("userns") {
		mode := c.String("userns")
		if !slices.Contains(config.UserNSModes, mode) {
			return cli.Exit(fmt.Sprintf("--userns %q is not a mode: use auto, required or host", mode), exitUsage)
		}
		cfg.Runtime.UserNS = mode
	}
	if c.IsSet("log-format") {
		format := c.String("log-format")
		if !slices.Contains(config.LogFormats, format) {
			return cli.Exit(fmt.Sprintf("--log-format %q is not a format: use auto, text, journal or json", format), exitUsage)
		}
		cfg.LogFormat = config.LogFormat(format)
	}
	return overrideLimits(cfg, c)
}

func newLogger(cfg *config.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	switch {
	case cfg.LogFormat == config.LogJSON:
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	case cfg.LogFormat == config.LogJournal, cfg.LogFormat == config.LogAuto && journal.Connected(os.Stderr):
		return slog.New(journal.NewHandler(os.Stderr, cfg.LogLevel))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
