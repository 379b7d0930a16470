package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func gcCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "gc",
		Category: categorySteer,
		Usage:    "remove what nothing needs",
		Description: `Removes what the node removes by itself from time to time, and when its disk is short of
room: images and caches beyond the age or size that gc.images allows, files of runs that
are over, scratch of idle jobs, old records. Images of living and waiting runs, and those
named by gc.images.keep, are safe. Sizes are in units of 1000 bytes.

Examples:
   v6node gc --dry-run
   v6node gc
   v6node gc --all`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "remove all that no living or waiting run needs, however young"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be removed"},
		},
		Action: gc,
	})
}

func gc(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	report, err := s.GC(c.Context, admin.GCOptions{DryRun: c.Bool("dry-run"), All: c.Bool("all")})
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		err = printJSON(c.App.Writer, report)
	} else {
		err = printGC(c, report)
	}
	if err != nil {
		return err
	}
	failed := len(report.Problems)
	for _, p := range report.Problems {
		fmt.Fprintf(c.App.ErrWriter, "v6node: %s\n", printable(p))
	}
	for _, i := range report.Items {
		if i.Error != "" {
			failed++
			fmt.Fprintf(c.App.ErrWriter, "v6node: %s %s could not be removed: %s\n", printable(i.Kind), printable(i.Name), printable(i.Error))
		}
	}
	if failed > 0 {
		return cli.Exit("", exitFailure)
	}
	return nil
}

func printGC(c *cli.Context, r *admin.GCReport) error {
	t := newTable(c.App.Writer, "KIND", "NAME", "SIZE", "LAST USED", "REASON")
	for _, i := range r.Items {
		t.row(i.Kind, i.Name, humanSize(i.Size), ago(i.UsedAt), i.Reason)
	}
	if err := t.print(); err != nil {
		return err
	}
	what := "reclaimed"
	if r.DryRun {
		what = "reclaimable"
	}
	_, err := fmt.Fprintf(c.App.Writer, "Total %s space: %s\n", what, humanSize(r.Freed))
	return err
}
