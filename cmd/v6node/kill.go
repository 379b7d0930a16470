package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
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
		Action: kill,
	})
}

func kill(c *cli.Context) error {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	killed := []int64{}
	failed := eachRun(c, s, func(run int64) error {
		if err := s.Kill(c.Context, run); err != nil {
			return err
		}
		killed = append(killed, run)
		if !wantsJSON(c) {
			fmt.Fprintln(c.App.Writer, run)
		}
		return nil
	})
	if wantsJSON(c) {
		err = printJSON(c.App.Writer, killed)
	}
	if failed != nil {
		return failed
	}
	return err
}
