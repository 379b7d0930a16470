package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/config"
)

// defaultStateDir is where nodes of the system keep their state, one below
// the other: /var/lib/v6node/NAME.
const defaultStateDir = "/var/lib/v6node"

// Categories of commands in the help.
const (
	categoryWatch = "see a running node"
	categorySteer = "steer a running node"
)

// latest names the newest run.
const latest = "latest"

// stationCommand gives a command what all those have that speak to a running
// node. output is its standard format, or "" if it has none.
func stationCommand(output string, c *cli.Command) *cli.Command {
	c.Flags = append(c.Flags,
		&cli.PathFlag{Name: "state-dir", Usage: "speak to the node whose state directory is `DIR`; also V6NODE_STATE_DIR"},
		&cli.PathFlag{Name: "config", Aliases: []string{"c"}, Usage: "speak to the node whose configuration is `FILE`; also V6NODE_CONFIG", TakesFile: true})
	if output != "" {
		c.Flags = append(c.Flags, outputFlag(output))
	}
	c.OnUsageError = usageError
	c.HideHelpCommand = true
	c.UseShortOptionHandling = true
	return c
}

// station returns the client for the node that the command line, the
// environment or the machine names.
func station(c *cli.Context) (*admin.Client, error) {
	dir, err := chooseStateDir(c.Path("state-dir"), c.Path("config"))
	if err != nil {
		return nil, err
	}
	return admin.NewClient(dir), nil
}

// chooseStateDir: what the command line names, then what the environment does,
// then the only node of this machine.
func chooseStateDir(dir, file string) (string, error) {
	if dir == "" && file == "" {
		dir, file = os.Getenv("V6NODE_STATE_DIR"), os.Getenv("V6NODE_CONFIG")
	}
	switch {
	case dir != "":
		return filepath.Abs(dir)
	case file != "":
		return configuredDir(file)
	}
	return findStateDir(stateRoots())
}

func configuredDir(file string) (string, error) {
	cfg, _, err := config.Load(file)
	if err != nil {
		return "", err
	}
	return cfg.StateDir, nil
}

// stateRoots are the directories below which nodes keep their state if their
// configuration does not say otherwise.
func stateRoots() []string {
	if os.Geteuid() == 0 {
		return []string{defaultStateDir}
	}
	home := os.Getenv("XDG_STATE_HOME")
	if user, err := os.UserHomeDir(); err == nil && !filepath.IsAbs(home) {
		home = filepath.Join(user, ".local", "state")
	}
	if !filepath.IsAbs(home) {
		return []string{defaultStateDir}
	}
	return []string{defaultStateDir, filepath.Join(home, "v6node")}
}

// findStateDir returns the one directory at or below the roots that has a
// socket, and the first root if none has.
func findStateDir(roots []string) (string, error) {
	var found []string
	for _, root := range roots {
		for _, pattern := range []string{admin.SocketName, filepath.Join("*", admin.SocketName)} {
			sockets, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil {
				return "", err
			}
			for _, s := range sockets {
				found = append(found, filepath.Dir(s))
			}
		}
	}
	switch len(found) {
	case 0:
		return roots[0], nil
	case 1:
		return found[0], nil
	}
	return "", cli.Exit(fmt.Sprintf("there are several nodes on this machine (%s): name one with --state-dir or --config", strings.Join(found, ", ")), exitUsage)
}

// runOf reads a command's argument RUN.
func runOf(ctx context.Context, s admin.Station, arg string) (int64, error) {
	if arg == latest {
		return latestRun(ctx, s)
	}
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id <= 0 {
		return 0, cli.Exit(fmt.Sprintf("%q is not a run: give the id that v6node ps shows, or %q", arg, latest), exitUsage)
	}
	return id, nil
}

// errEnough ends a list of which no more is wanted.
var errEnough = errors.New("enough")

func latestRun(ctx context.Context, s admin.Station) (int64, error) {
	var id int64
	err := s.Runs(ctx, admin.RunQuery{All: true}, func(r *admin.Run) error {
		id = r.ID
		return errEnough
	})
	switch {
	case errors.Is(err, errEnough):
		return id, nil
	case err != nil:
		return 0, err
	}
	return 0, admin.Problemf(admin.ErrNotFound, "the node knows no run yet")
}

// runsOf reads all arguments of a command as runs, each once.
func runsOf(ctx context.Context, s admin.Station, args cli.Args) ([]int64, error) {
	var out []int64
	for _, arg := range args.Slice() {
		id, err := runOf(ctx, s, arg)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

// wantArgs refuses a wrong number of arguments. most < 0 is any number.
func wantArgs(c *cli.Context, least, most int) error {
	n := c.Args().Len()
	if n >= least && (most < 0 || n <= most) {
		return nil
	}
	if most == 0 {
		return cli.Exit(fmt.Sprintf("%s takes no argument, but got %q", c.Command.Name, c.Args().First()), exitUsage)
	}
	return cli.Exit(fmt.Sprintf("%s wants %s, but got %d arguments: v6node %[1]s --help has examples", c.Command.Name, c.Command.ArgsUsage, n), exitUsage)
}

// eachRun does something for each named run. One failure does not keep it from
// the others; the exit code is that of the first.
func eachRun(c *cli.Context, s admin.Station, do func(run int64) error) error {
	runs, err := runsOf(c.Context, s, c.Args())
	if err != nil {
		return err
	}
	var first error
	for _, run := range runs {
		err := do(run)
		switch {
		case err == nil:
			continue
		case c.Context.Err() != nil:
			return err
		case len(runs) == 1:
			return err
		case first == nil:
			first = err
		}
		fmt.Fprintln(c.App.ErrWriter, "v6node:", printable(err.Error()))
	}
	if first != nil {
		return cli.Exit("", exitCode(first))
	}
	return nil
}

// interrupted turns the end by Ctrl-C, which is how one leaves what goes on
// for ever, into success.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
