// Command v6node is a vantage6 node that speaks CRI.
//
// Started as v6node-probe it is what `v6node check --run-tests` runs in
// containers. When the environment has CNI_COMMAND the program is the CNI plugin instead,
// reads nothing from its command line, and answers as the CNI specification
// says. Exit codes are in exitcode.go and docs/commands.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/integration/conformance"
	"github.com/v6node/v6node/internal/journal"
	"github.com/v6node/v6node/node/check"
)

// version is set by the linker in release builds.
var version string

func main() {
	if os.Getenv("CNI_COMMAND") != "" {
		cni.PluginMain()
		return
	}
	switch filepath.Base(os.Args[0]) {
	case conformance.ProbeName:
		conformance.Probe(os.Args[1:])
	case check.HelperName:
		check.Help(os.Args[1:])
	}
	// Go programs end with 2, the code of wrong usage, after a panic and a watchdog's
	// SIGABRT; a service manager would not start them again. So they end by the signal.
	debug.SetTraceback("crash")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	signalled := context.AfterFunc(ctx, func() {
		stop() // the next signal does what it does by default
		fmt.Fprintln(os.Stderr, "v6node: stopping; a second signal ends the program at once")
	})
	defer signalled()
	app := newApp()
	if err := app.RunContext(ctx, flagsFirst(app.Commands, os.Args)); err != nil {
		priority := ""
		if journal.Connected(os.Stderr) {
			priority = journal.Error
		}
		fmt.Fprintln(os.Stderr, priority+"v6node:", err)
		os.Exit(exitCode(err))
	}
}

func newApp() *cli.App {
	return &cli.App{
		Name:    "v6node",
		Usage:   "a vantage6 node for any CRI container runtime",
		Version: buildVersion(),
		Commands: []*cli.Command{
			runCommand(),
			initCommand(),
			configCommand(),
			checkCommand(),
			demoCommand(),
			installCommand(),
			uninstallCommand(),
			cniCommand(),
			imageCommand(),
			psCommand(),
			logsCommand(),
			statsCommand(),
			topCommand(),
			inspectCommand(),
			eventsCommand(),
			auditCommand(),
			queueCommand(),
			infoCommand(),
			versionCommand(),
			approveCommand(),
			denyCommand(),
			killCommand(),
			updateCommand(),
			pauseCommand(),
			resumeCommand(),
			reloadCommand(),
			gcCommand(),
			policyCommand(),
			keyCommand(),
			completionCommand(),
			completeCommand(),
		},
		OnUsageError: usageError,
	}
}

// usageError gives a wrong command line its own exit code.
func usageError(_ *cli.Context, err error, _ bool) error {
	return cli.Exit("v6node: "+err.Error(), exitUsage)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
