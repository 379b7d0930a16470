package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/admin"
)

func updateCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:      "update",
		Category:  categorySteer,
		Usage:     "change the limits of a living run",
		ArgsUsage: "RUN",
		Description: `Changes limits of a run while its algorithm runs, and prints the limits that it then
has. All changes are made, or none. Sizes are a number and b, k, m, g or t, units of
1024 bytes as in Podman; 0 removes a limit.

Examples:
   v6node update --memory 4g 101
   v6node update --cpus 1.5 --pids-limit 200 latest
   v6node update --timeout 2h --log-size 256m 101`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Aliases: []string{"m"}, Usage: "memory `SIZE`"},
			&cli.StringFlag{Name: "memory-swap", Usage: "`SIZE` of memory and swap together, -1 for unlimited swap"},
			&cli.StringFlag{Name: "memory-reservation", Usage: "`SIZE` to which the run is reclaimed under pressure"},
			&cli.Float64Flag{Name: "cpus", Usage: "`NUMBER` of CPUs, such as 1.5"},
			&cli.Int64Flag{Name: "cpu-shares", Usage: "relative `WEIGHT` among runs that compete for CPU, 2 to 262144"},
			&cli.StringFlag{Name: "cpuset-cpus", Usage: "`LIST` of CPUs that may be used, such as 0-3,8"},
			&cli.StringFlag{Name: "cpuset-mems", Usage: "`LIST` of memory nodes that may be used"},
			&cli.Int64Flag{Name: "pids-limit", Usage: "`NUMBER` of processes and threads"},
			&cli.StringFlag{Name: "log-size", Usage: "`SIZE` of the log on the disk, its beginning and its end"},
			&cli.StringFlag{Name: "timeout", Usage: "`TIME` that the algorithm may run, counted from its start"},
		},
		Action: update,
	})
}

func update(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	change, err := limitChange(c)
	if err != nil {
		return err
	}
	if change.Empty() {
		return cli.Exit("update wants at least one limit to change, such as --memory 4g", exitUsage)
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	run, err := runOf(c.Context, s, c.Args().First())
	if err != nil {
		return err
	}
	now, err := s.Update(c.Context, run, change)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, now)
	}
	t := newTable(c.App.Writer, "LIMIT", "NOW")
	for _, r := range limitRows(*now) {
		t.row(r.name, r.value)
	}
	return t.print()
}

// limitChange reads the flags that are set.
func limitChange(c *cli.Context) (change admin.LimitChange, err error) {
	wrong := func(flag string, err error) error {
		return cli.Exit(fmt.Sprintf("--%s: %v", flag, err), exitUsage)
	}
	for flag, field := range map[string]**int64{"memory": &change.Memory, "memory-swap": &change.MemorySwap, "memory-reservation": &change.MemoryReservation, "log-size": &change.LogSize} {
		if !c.IsSet(flag) {
			continue
		}
		n := int64(-1)
		if flag != "memory-swap" || c.String(flag) != "-1" {
			if n, err = units.ParseSize(c.String(flag)); err != nil {
				return change, wrong(flag, err)
			}
		}
		*field = &n
	}
	for flag, field := range map[string]**int64{"cpu-shares": &change.CPUShares, "pids-limit": &change.Pids} {
		if c.IsSet(flag) {
			n := c.Int64(flag)
			if n < 0 {
				return change, wrong(flag, fmt.Errorf("%d is less than 0", n))
			}
			*field = &n
		}
	}
	for flag, field := range map[string]**string{"cpuset-cpus": &change.CpusetCPUs, "cpuset-mems": &change.CpusetMems} {
		if c.IsSet(flag) {
			list := c.String(flag)
			*field = &list
		}
	}
	if c.IsSet("cpus") {
		n := c.Float64("cpus")
		if !(n >= 0 && n <= 1<<16) { // also refuses NaN
			return change, wrong("cpus", fmt.Errorf("%v is not a number of CPUs", n))
		}
		change.CPUs = &n
	}
	if c.IsSet("timeout") {
		d, err := units.ParseDuration(c.String("timeout"))
		if err == nil && d < 0 {
			err = fmt.Errorf("%v is less than 0", d)
		}
		if err != nil {
			return change, wrong("timeout", err)
		}
		s := d.Seconds()
		change.TimeoutSeconds = &s
	}
	return change, nil
}
