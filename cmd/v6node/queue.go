package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func queueCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "queue",
		Category: categoryWatch,
		Usage:    "list the runs that wait, and for what",
		Description: `Lists the runs that the node has not begun because they do not fit or because it is
paused, the next one first, and then those that wait for v6node approve.

Examples:
   v6node queue
   v6node queue -o json | jq 'length'`,
		Action: queue,
	})
}

func queue(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	list, err := s.Queue(c.Context)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		if list == nil {
			list = []admin.Waiting{}
		}
		return printJSON(c.App.Writer, list)
	}
	t := newTable(c.App.Writer, "POSITION", "RUN", "TASK", "IMAGE", "ORGANIZATION", "WAITING", "NEEDS", "REASON")
	for _, w := range list {
		position := "-"
		if w.Position > 0 {
			position = strconv.Itoa(w.Position)
		}
		t.row(position, decimal(w.Run), decimal(w.Task), w.Image, organization(w.OrganizationName, w.Organization),
			humanDuration(time.Since(w.Since)), dash(amount(w.Needs)), w.Reason)
	}
	return t.print()
}

// amount says of what is shared out all that is not zero.
func amount(r admin.Resources) string {
	var parts []string
	if r.Memory > 0 {
		parts = append(parts, humanSize(r.Memory))
	}
	if r.CPUs > 0 {
		parts = append(parts, strconv.FormatFloat(r.CPUs, 'g', -1, 64)+" cpus")
	}
	if r.Pids > 0 {
		parts = append(parts, decimal(r.Pids)+" pids")
	}
	for _, k := range slices.Sorted(maps.Keys(r.Devices)) {
		parts = append(parts, fmt.Sprintf("%d %s", r.Devices[k], k))
	}
	return strings.Join(parts, ", ")
}
