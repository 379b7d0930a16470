package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func approveCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:      "approve",
		Category:  categorySteer,
		Usage:     "let runs begin that wait for approval",
		ArgsUsage: "RUN...",
		Description: `Lets runs begin that wait because a rule of policies.rules says approve: manual. What is
approved is the run with the digest of its image that v6node inspect shows: if its
reference means another image by the time it begins, it waits again. Who approved is in
the audit log. The command prints the id of each run that it approved.

Examples:
   v6node ps --filter status=held
   v6node approve 101`,
		Action: func(c *cli.Context) error {
			return eachPrinted(c, func(s admin.Station, run int64) error { return s.Approve(c.Context, run) })
		},
	})
}

func denyCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:      "deny",
		Category:  categorySteer,
		Usage:     "refuse runs that wait for approval",
		ArgsUsage: "RUN...",
		Description: `Refuses runs that wait because a rule of policies.rules says approve: manual. They end
as "not allowed", and whoever sent the task reads the reason. Who refused is in the audit
log. The command prints the id of each run that it refused.

Examples:
   v6node deny 101
   v6node deny 101 --reason "the data committee has not agreed"`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "tell the sender of the task `TEXT`"}},
		Action: func(c *cli.Context) error {
			return eachPrinted(c, func(s admin.Station, run int64) error { return s.Deny(c.Context, run, c.String("reason")) })
		},
	})
}

// eachPrinted does something for each named run and prints the ids of those for which it could.
func eachPrinted(c *cli.Context, do func(s admin.Station, run int64) error) error {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	done := []int64{}
	failed := eachRun(c, s, func(run int64) error {
		if err := do(s, run); err != nil {
			return err
		}
		done = append(done, run)
		if !wantsJSON(c) {
			fmt.Fprintln(c.App.Writer, run)
		}
		return nil
	})
	if wantsJSON(c) {
		err = printJSON(c.App.Writer, done)
	}
	if failed != nil {
		return failed
	}
	return err
}
