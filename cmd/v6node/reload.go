package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func reloadCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "reload",
		Category: categorySteer,
		Usage:    "read the configuration again",
		Description: `Makes the node read its configuration file again, as SIGHUP does, and apply the sections
policies, databases, limits and limit_rules to runs that begin from now on. Runs that were
begun go on as they are. A file that cannot be used changes nothing, and the exit code is
2. Other keys that changed are named: they need a restart of the node.

Examples:
   v6node reload
   v6node reload -o json | jq -r '.restart[]'`,
		Action: reload,
	})
}

func reload(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	change, err := s.Reload(c.Context)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, change)
	}
	for _, w := range change.Warnings {
		fmt.Fprintln(c.App.ErrWriter, "v6node: warning:", printable(w))
	}
	if len(change.Restart) > 0 {
		fmt.Fprintf(c.App.ErrWriter, "v6node: warning: these changes need a restart of the node: %s\n", printable(strings.Join(change.Restart, ", ")))
	}
	text := "Nothing has changed."
	if len(change.Applied) > 0 {
		text = "Applied: " + printable(strings.Join(change.Applied, ", ")) + "."
	}
	_, err = fmt.Fprintln(c.App.Writer, text)
	return err
}
