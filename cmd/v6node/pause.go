package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

// drainPoll is how often a waiting pause looks whether runs are left.
const drainPoll = time.Second

func pauseCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "pause",
		Category: categorySteer,
		Usage:    "begin no further run",
		Description: `Makes the node begin no further run, also after a restart, until v6node resume. Tasks
that come stay in the queue, and runs that were begun go on. With --wait the command
ends when none of those is left and all their results are delivered.

Examples:
   v6node pause
   v6node pause --wait && systemctl stop v6node`,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "wait", Aliases: []string{"w"}, Usage: "wait until no run is left"}},
		Action: pause,
	})
}

func resumeCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "resume",
		Category: categorySteer,
		Usage:    "begin runs again after a pause",
		Description: `Ends a pause. It is no error if there was none.

Example:
   v6node resume`,
		Action: resume,
	})
}

// intake is what pause and resume report.
type intake struct {
	Paused bool            `json:"paused"`
	Runs   admin.RunCounts `json:"runs"`
}

func pause(c *cli.Context) error {
	return changeIntake(c, func(ctx context.Context, s admin.Station) error {
		if err := s.Pause(ctx); err != nil || !c.Bool("wait") {
			return err
		}
		return drained(ctx, s)
	})
}

func resume(c *cli.Context) error {
	return changeIntake(c, func(ctx context.Context, s admin.Station) error { return s.Resume(ctx) })
}

func changeIntake(c *cli.Context, change func(context.Context, admin.Station) error) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	if err := change(c.Context, s); err != nil {
		return err
	}
	info, err := s.Info(c.Context)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, intake{Paused: info.Node.Paused, Runs: info.Runs})
	}
	text := "The node begins runs."
	if info.Node.Paused {
		text = "The node begins no further run until v6node resume."
	}
	r := info.Runs
	_, err = fmt.Fprintf(c.App.Writer, "%s Preparing: %d, running: %d, delivering: %d, waiting: %d.\n", text, r.Preparing, r.Running, r.Delivering, r.Queued)
	return err
}

// drained returns when the node has no run that was begun.
func drained(ctx context.Context, s admin.Station) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		info, err := s.Info(ctx)
		if err != nil {
			return err
		}
		if r := info.Runs; r.Preparing+r.Running+r.Delivering == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
