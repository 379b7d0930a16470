package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func topCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:      "top",
		Category:  categoryWatch,
		Usage:     "list the processes of a run",
		ArgsUsage: "RUN",
		Description: `Lists the processes in the sandbox of a living run. Process ids and users are those of
this machine. %CPU is over the process's life, TIME its CPU time, RSS its memory.

Examples:
   v6node top 101
   v6node top -o json latest`,
		Action: top,
	})
}

func top(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	run, err := runOf(c.Context, s, c.Args().First())
	if err != nil {
		return err
	}
	list, err := s.Top(c.Context, run)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, list)
	}
	return printProcesses(c, list)
}

func printProcesses(c *cli.Context, list []admin.Process) error {
	t := newTable(c.App.Writer, "USER", "PID", "PPID", "%CPU", "ELAPSED", "TIME", "RSS", "THREADS", "STATE", "COMMAND")
	for _, p := range list {
		t.row(p.User, fmt.Sprint(p.PID), fmt.Sprint(p.PPID), fmt.Sprintf("%.1f", p.CPUPercent), cpuTime(seconds(p.ElapsedSeconds)),
			cpuTime(seconds(p.CPUSeconds)), humanSize(p.Memory), fmt.Sprint(p.Threads), p.State, p.Command)
	}
	return t.print()
}
