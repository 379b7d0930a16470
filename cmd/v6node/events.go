package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func eventsCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "events",
		Category: categoryWatch,
		Usage:    "show what happened in the node",
		Description: `Shows what the node remembers since its start, at most ` + decimal(admin.JournalSize) + ` events, and with --follow
what happens from now on too.

A filter is KEY=VALUE with the key type, run or task. Values of one key are
alternatives, different keys must all hold.

Examples:
   v6node events --since 1h
   v6node events -f --filter type=oom --filter type=timeout
   v6node events -f -o json | jq -r 'select(.type == "exited").run'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new events until Ctrl-C"},
			sinceFlag("events"),
			&cli.StringSliceFlag{Name: "filter", Usage: "show only the events for which `KEY=VALUE` holds"},
		},
		Action: events,
	})
}

func events(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	matches, err := eventFilter(c.StringSlice("filter"))
	if err != nil {
		return err
	}
	o := admin.EventOptions{Follow: c.Bool("follow")}
	if o.Since, err = since(c, time.Now()); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	show := eventPrinter(c)
	err = s.Events(c.Context, o, func(e *admin.Event) error {
		if !matches(e) {
			return nil
		}
		return show(e)
	})
	if o.Follow {
		err = interrupted(c.Context, err)
	}
	return err
}

// eventPrinter prints in columns of fixed width: the next event is not known
// yet.
func eventPrinter(c *cli.Context) func(*admin.Event) error {
	if wantsJSON(c) {
		return func(e *admin.Event) error { return printJSONLine(c.App.Writer, e) }
	}
	const form = "%-29s  %-12s  %-8s  %-8s  %s\n"
	header := true
	return func(e *admin.Event) error {
		if header {
			fmt.Fprintf(c.App.Writer, form, "TIME", "EVENT", "RUN", "TASK", "MESSAGE")
			header = false
		}
		_, err := fmt.Fprintf(c.App.Writer, form, e.Time.Local().Format("2006-01-02T15:04:05.000Z07:00"), printable(string(e.Type)),
			dash(number(e.Run)), dash(number(e.Task)), printable(dash(eventText(e))))
		return err
	}
}

func eventText(e *admin.Event) string {
	parts := make([]string, 0, len(e.Attributes))
	for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
		parts = append(parts, k+"="+e.Attributes[k])
	}
	return strings.TrimSpace(e.Message + " " + parenthesis(strings.Join(parts, ", ")))
}

func eventFilter(filters []string) (func(*admin.Event) bool, error) {
	wanted, err := parseFilters(filters, "type", "run", "task")
	if err != nil {
		return nil, err
	}
	return func(e *admin.Event) bool {
		return holds(wanted, map[string]string{"type": string(e.Type), "run": decimal(e.Run), "task": decimal(e.Task)})
	}, nil
}
