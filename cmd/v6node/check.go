package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/integration/conformance"
	"github.com/v6node/v6node/node/boot"
	"github.com/v6node/v6node/node/check"
	"github.com/v6node/v6node/node/config"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "find out whether this machine can run a node, and what to do if not",
		Description: `Looks at the machine, at the container runtime that a node would use (the one at
--cri-endpoint, or that of the configuration, or else a containerd of v6node's own, which
is started for it and ended again) and, with --config, at everything that the
configuration names: files, disks, server, encryption key, registries, databases. Each
line is ok, warn, fail or skip, with what to do about it behind an arrow.

Nothing is changed, no secret is shown, and a node that runs is not disturbed. Each check
has half a minute at most, and all look at the same time.

With --run-tests everything that a node relies on is tried in sandboxes of that runtime:
the network that leads nowhere, confinement, limits, logs, ends, images from a registry
on this machine's loopback. It needs no image and no network from outside, disturbs
nothing else in the runtime, and removes what it makes. It takes a minute or two.

Examples:
   v6node check --config /etc/v6node/node.yaml
   v6node check --cri-endpoint unix:///run/crio/crio.sock
   v6node check --config node.yaml -o json | jq -r '.results[] | select(.status == "fail").fix'
   v6node check --run-tests --cri-endpoint unix:///run/containerd/containerd.sock
   v6node check --run-tests --only logs`,
		OnUsageError: usageError,
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "config", Aliases: []string{"c"}, Usage: "check everything that the configuration `FILE` names", EnvVars: []string{"V6NODE_CONFIG"}, TakesFile: true},
			&cli.StringFlag{Name: "cri-endpoint", Usage: "check the container runtime at `unix:///PATH`; overrides runtime.endpoint", EnvVars: []string{"CONTAINER_RUNTIME_ENDPOINT"}},
			&cli.StringFlag{Name: "runtime-handler", Usage: "use this `HANDLER` of the runtime; overrides runtime.handler"},
			&cli.PathFlag{Name: "bundle-dir", Usage: "find the managed containerd's programs in `DIR`", EnvVars: []string{"V6NODE_BUNDLE"}},
			&cli.BoolFlag{Name: "run-tests", Usage: "try in sandboxes what a node relies on"},
			&cli.StringFlag{Name: "only", Usage: "with --run-tests: try only what has `TEXT` in its name"},
			outputFlag(asTable),
		},
		Action: runCheck,
	}
}

// checkReport is what check prints as JSON.
type checkReport struct {
	Results []check.Result `json:"results"`
	Summary check.Summary  `json:"summary"`
}

func runCheck(c *cli.Context) (err error) {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	if c.IsSet("only") && !c.Bool("run-tests") {
		return cli.Exit("--only chooses among the tests: add --run-tests", exitUsage)
	}
	roots := stateRoots()
	o := check.Options{File: c.Path("config"), Version: c.App.Version, StateDir: roots[len(roots)-1]}
	if o.File != "" {
		o.Config, o.Warnings, o.Invalid = config.Load(o.File)
	}
	if o.Config != nil {
		o.Endpoint, o.Handler, o.Access = o.Config.Runtime.Endpoint, o.Config.Runtime.Handler, boot.Access(o.Config)
	}
	if c.IsSet("cri-endpoint") {
		o.Endpoint = c.String("cri-endpoint")
	}
	if c.IsSet("runtime-handler") {
		o.Handler = c.String("runtime-handler")
	}
	tests := conformance.Options{Handler: o.Handler}
	if only := c.String("only"); only != "" {
		has := func(name string) bool { return strings.Contains(name, only) }
		if !slices.ContainsFunc(conformance.Names(), has) {
			return cli.Exit(fmt.Sprintf("no test has %q in its name; the names are:\n  %s", only, strings.Join(conformance.Names(), "\n  ")), exitUsage)
		}
		tests.Only = has
	}
	root := os.Geteuid() == 0
	if c.Bool("run-tests") && !root {
		return cli.Exit("the tests enter the sandboxes' network and read control groups: run them as root", exitRuntime)
	}
	if o.Endpoint == "" {
		o.Managed = true
		trial, err := tryManaged(c, root)
		if err != nil {
			o.Cannot = err
		} else if trial != nil {
			defer func() { err = errors.Join(err, trial.Close()) }()
			o.Endpoint, tests.Restart = trial.Endpoint(), trial.Restart
		}
	}
	tests.Endpoint = o.Endpoint
	checks := check.Doctor(o)
	if o.Endpoint != "" && c.Bool("run-tests") {
		checks = append(checks, check.Behaviour(tests))
	}
	return printChecks(c, checks)
}

// tryManaged starts the containerd that a node would start by itself. Without
// root it is nil: a node makes a user namespace for it, which only a node does.
func tryManaged(c *cli.Context, root bool) (*boot.Trial, error) {
	plugin, err := pluginExecutable(c)
	if err != nil {
		return nil, err
	}
	dirs := boot.BundleDirs(c.Path("bundle-dir"))
	if !root {
		return nil, boot.HaveManaged(dirs)
	}
	return boot.TryManaged(c.Context, boot.Options{PluginBinary: plugin, BundleDirs: dirs})
}

func printChecks(c *cli.Context, checks []check.Check) error {
	report := checkReport{Results: []check.Result{}}
	show := func(r check.Result) { report.Results = append(report.Results, r) }
	if !wantsJSON(c) {
		group := ""
		show = func(r check.Result) {
			if r.Group != group {
				group = r.Group
				fmt.Fprintln(c.App.Writer, printable(group))
			}
			printCheck(c.App.Writer, r)
		}
	}
	var err error
	report.Summary, err = check.Run(c.Context, checks, show)
	if wantsJSON(c) {
		err = errors.Join(err, printJSON(c.App.Writer, report))
	} else {
		s := report.Summary
		_, printed := fmt.Fprintf(c.App.Writer, "\n%d ok, %d warnings, %d failed, %d skipped\n", s.OK, s.Warn, s.Fail, s.Skip)
		err = errors.Join(err, printed)
	}
	if err != nil {
		return err
	}
	if report.Summary.Fail > 0 {
		return cli.Exit("", exitCheck)
	}
	return nil
}

func printCheck(w io.Writer, r check.Result) {
	took := ""
	if r.Took > 0 {
		took = fmt.Sprintf(" (%.1f s)", r.Took.Seconds())
	}
	fmt.Fprintf(w, "  %-4s  %s%s\n", r.Status, printable(r.Name), took)
	for _, more := range []string{r.Detail, r.Fix} {
		if more == "" {
			continue
		}
		if more == r.Fix {
			more = "-> " + more
		}
		fmt.Fprintf(w, "        %s\n", printable(more))
	}
}
