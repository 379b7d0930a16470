package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func psCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "ps",
		Category: categoryWatch,
		Usage:    "list runs",
		Description: `Lists the runs that the node prepares, runs or delivers or that wait for approval
(v6node approve), the newest first; with --all also those that wait for room (v6node queue says why) and those that are over.

A filter is KEY=VALUE with the key id, task, job, organization, user, image (a part
of the name), status (held, queued, preparing, starting, running, delivering, done) or
reason (docs/operation.md). Values of one key are alternatives, different keys must
all hold.

Examples:
   v6node ps
   v6node ps --all --filter status=done --filter reason=crashed
   v6node ps -q --filter task=12 | xargs -r v6node kill`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also list the runs that wait and those that are over"},
			&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "list only the runs for which `KEY=VALUE` holds"},
			&cli.IntFlag{Name: "last", Aliases: []string{"n"}, Usage: "list only the newest `N` runs, whatever their state"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print ids only"},
		},
		Action: ps,
	})
}

func ps(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	matches, err := runFilter(c.StringSlice("filter"))
	if err != nil {
		return err
	}
	last := c.Int("last")
	if c.IsSet("last") && last < 1 {
		return cli.Exit("--last wants a number from 1 on", exitUsage)
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	runs := []*admin.Run{} // [] and not null in JSON
	err = s.Runs(c.Context, admin.RunQuery{All: c.Bool("all") || last > 0}, func(r *admin.Run) error {
		if matches(r) {
			runs = append(runs, r)
		}
		if last > 0 && len(runs) == last {
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return err
	}
	switch {
	case wantsJSON(c):
		return printJSON(c.App.Writer, runs)
	case c.Bool("quiet"):
		for _, r := range runs {
			if _, err := fmt.Fprintln(c.App.Writer, r.ID); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(c.App.Writer, "RUN", "TASK", "IMAGE", "ORGANIZATION", "CREATED", "STATUS")
	for _, r := range runs {
		t.row(decimal(r.ID), decimal(r.Task), r.Image, organization(r.OrganizationName, r.Organization), ago(r.ReceivedAt), status(r, time.Now()))
	}
	return t.print()
}

func organization(name string, id int64) string {
	if name != "" {
		return name
	}
	return decimal(id)
}

// status says in Podman's words how it is with a run.
func status(r *admin.Run, now time.Time) string {
	since := func(t time.Time) string { return humanDuration(now.Sub(t)) }
	ending := ""
	if r.KillWanted && !r.State.Over() {
		ending = ", being killed"
	}
	switch r.State {
	case admin.Held:
		return "Waits for approval " + since(r.ReceivedAt) + ending
	case admin.Queued:
		return "Queued " + since(r.ReceivedAt) + ending
	case admin.Preparing:
		return "Preparing" + imageProgress(r.Doing) + ending
	case admin.Starting:
		return "Starting" + ending
	case admin.Running:
		return "Up " + since(r.StartedAt) + ending
	}
	if !r.State.Over() || r.Outcome == nil {
		return string(r.State) // a state that only a newer node has
	}
	text := "Failed (" + r.Outcome.Reason + ")"
	switch {
	case r.Outcome.Reason == "killed":
		text = "Killed"
	case r.Outcome.Reason == "gone":
		text = "Gone at the server"
	case r.Outcome.Started && r.Outcome.Reason == "completed":
		text = fmt.Sprintf("Exited (%d)", r.Outcome.ExitCode)
	case r.Outcome.Started && r.Outcome.ExitCode != 0:
		text = fmt.Sprintf("Exited (%d, %s)", r.Outcome.ExitCode, r.Outcome.Reason)
	}
	if !r.FinishedAt.IsZero() {
		text += " " + since(r.FinishedAt) + " ago"
	}
	if r.State == admin.Delivering {
		text += ", delivering"
	}
	return text
}

// imageProgress says how far a run's image is, or its input: " (converting, 40%)".
func imageProgress(p *admin.ImageProgress) string {
	switch {
	case p == nil:
		return ""
	case p.Total > 0:
		return fmt.Sprintf(" (%s, %d%%)", p.Doing, min(100*p.Done/p.Total, 100))
	}
	return fmt.Sprintf(" (%s, %s)", p.Doing, humanSize(p.Done))
}

// runFilter makes a condition of --filter's values.
func runFilter(filters []string) (func(*admin.Run) bool, error) {
	wanted, err := parseFilters(filters, "id", "task", "job", "organization", "user", "image", "status", "reason")
	if err != nil {
		return nil, err
	}
	return func(r *admin.Run) bool {
		for key, values := range wanted {
			if !slices.ContainsFunc(values, func(v string) bool { return runHas(r, key, v) }) {
				return false
			}
		}
		return true
	}, nil
}

func runHas(r *admin.Run, key, value string) bool {
	switch key {
	case "id":
		return value == decimal(r.ID)
	case "task":
		return value == decimal(r.Task)
	case "job":
		return value == decimal(r.Job)
	case "organization":
		return value == decimal(r.Organization) || value == r.OrganizationName
	case "user":
		return value == decimal(r.User)
	case "image":
		return strings.Contains(r.Image, value) || strings.Contains(r.Pinned, value)
	case "status":
		return value == string(r.State)
	}
	return r.Outcome != nil && value == r.Outcome.Reason // reason
}

// parseFilters reads KEY=VALUE pairs, of which a key may have several.
func parseFilters(filters []string, keys ...string) (map[string][]string, error) {
	out := make(map[string][]string)
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		if !ok || !slices.Contains(keys, key) {
			return nil, cli.Exit(fmt.Sprintf("the filter %q is not KEY=VALUE with a key of: %s", f, strings.Join(keys, ", ")), exitUsage)
		}
		out[key] = append(out[key], value)
	}
	return out, nil
}

// holds tells whether each key that is wanted has one of its values.
func holds(wanted map[string][]string, has map[string]string) bool {
	for key, values := range wanted {
		if !slices.Contains(values, has[key]) {
			return false
		}
	}
	return true
}
