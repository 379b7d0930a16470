package main

import (
	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func killCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:      "kill",
		Category:  categorySteer,
		Usage:     "end runs",
		ArgsUsage: "RUN...",
		Description: `Ends runs, waiting or living: the algorithm gets SIGTERM and, after stop_grace,
SIGKILL; its task gets the status "killed by user". The command prints the id of each
run that will end, and does not wait for the end.

Examples:
   v6node kill 101
   v6node kill latest
   v6node ps -q --filter organization=4 | xargs -r v6node kill`,
		Action: func(c *cli.Context) error {
			return eachPrinted(c, func(s admin.Station, run int64) error { return s.Kill(c.Context, run) })
		},
	})
}
