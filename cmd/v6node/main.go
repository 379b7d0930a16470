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
	os.Exit(perform(ctx, newApp(), os.Args))
}

// perform does what a command line says and returns the exit code. What failed is said
// on standard error.
func perform(ctx context.Context, app *cli.App, args []string) int {
	err := app.RunContext(ctx, flagsFirst(app.Commands, args))
	if err == nil {
		return 0
	}
	if text := err.Error(); text != "" { // else all was said before
		priority := ""
		if w, ok := app.ErrWriter.(*os.File); ok && journal.Connected(w) {
			priority = journal.Error
		}
		fmt.Fprintln(app.ErrWriter, priority+"v6node:", text)
	}
	return exitCode(err)
}

func newApp() *cli.App {
	unknown := error(nil)
	return &cli.App{
		Name:      "v6node",
		Usage:     "a vantage6 node for any CRI container runtime",
		Version:   buildVersion(),
		Writer:    os.Stdout,
		ErrWriter: os.Stderr,
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
		// The library would end the program for some errors and not for others.
		ExitErrHandler: func(*cli.Context, error) {},
		// It also has a code of its own for commands that do not exist.
		CommandNotFound: func(c *cli.Context, name string) {
			unknown = cli.Exit(fmt.Sprintf("there is no command %q: %s --help lists them", name, c.Command.HelpName), exitUsage)
		},
		After: func(*cli.Context) error { return unknown },
	}
}

// usageError gives a wrong command line its own exit code.
func usageError(_ *cli.Context, err error, _ bool) error {
	return cli.Exit(err.Error(), exitUsage)
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
