package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/admin"
)

func statsCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:      "stats",
		Category:  categoryWatch,
		Usage:     "show what runs use of the machine",
		ArgsUsage: "[RUN...]",
		Description: `Shows CPU, memory, disk and processes of the living runs, or of those named, and
again at each interval: in place on a terminal, line after line elsewhere. It ends when
none of the named runs lives, or with Ctrl-C.

CPU % is 100 for one CPU in use all the time: since the last sample, in the first one
since the run's start. THROTTLED is for how long the run would have used more than its
CPU limit. Sizes are in units of 1000 bytes.

Examples:
   v6node stats
   v6node stats --no-stream
   v6node stats -i 500ms 101 102
   v6node stats --no-stream -o json | jq '.[] | {run, memory}'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-stream", Usage: "print one sample and end"},
			&cli.BoolFlag{Name: "no-reset", Usage: "also on a terminal print line after line"},
			&cli.StringFlag{Name: "interval", Aliases: []string{"i"}, Usage: "`TIME` between samples, from 100ms to 1h", Value: "5s"},
		},
		Action: stats,
	})
}

func stats(c *cli.Context) error {
	interval, err := units.ParseDuration(c.String("interval"))
	if err != nil || interval < admin.MinInterval || interval > admin.MaxInterval {
		return cli.Exit(fmt.Sprintf("--interval %q is not a time from 100ms to 1h", c.String("interval")), exitUsage)
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	runs, err := runsOf(c.Context, s, c.Args())
	if err != nil {
		return err
	}
	show := statsPrinter(c)
	err = s.Watch(c.Context, runs, interval, func(f *admin.StatsFrame) error {
		if err := show(f); err != nil {
			return err
		}
		if c.Bool("no-stream") {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		return nil
	}
	return interrupted(c.Context, err)
}

func statsPrinter(c *cli.Context) func(*admin.StatsFrame) error {
	once := c.Bool("no-stream")
	if wantsJSON(c) {
		if once {
			return func(f *admin.StatsFrame) error { return printJSON(c.App.Writer, f.Runs) }
		}
		return func(f *admin.StatsFrame) error { return printJSONLine(c.App.Writer, f) }
	}
	if _, _, ok := terminal(c.App.Writer); ok && !once && !c.Bool("no-reset") {
		return refresh(c.App.Writer)
	}
	first := true
	return func(f *admin.StatsFrame) error {
		lines, err := statsTable(f)
		if err != nil {
			return err
		}
		if !first {
			lines = lines[1:] // the header
		}
		first = false
		return printLines(c.App.Writer, lines)
	}
}

func printLines(w io.Writer, lines []string) error {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// statsTable lays a frame out; the first line is the header.
func statsTable(f *admin.StatsFrame) ([]string, error) {
	var b bytes.Buffer
	t := newTable(&b, "RUN", "TASK", "CPU %", "MEM USAGE / LIMIT", "MEM %", "BLOCK IO", "PIDS", "CPU TIME", "THROTTLED")
	for _, s := range f.Runs {
		t.row(decimal(s.Run), decimal(s.Task), percent(s.CPUPercent),
			humanSize(s.Memory)+" / "+humanSize(s.MemoryLimit), percent(s.MemoryPercent),
			humanSize(s.ReadBytes)+" / "+humanSize(s.WrittenBytes), decimal(s.Pids),
			cpuTime(time.Duration(s.CPUNanos)), cpuTime(time.Duration(s.ThrottledNanos)))
	}
	if err := t.print(); err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"), nil
}

// Terminal control: ECMA-48 sequences that every terminal in use obeys.
const (
	eraseScreen  = "\x1b[2J"
	cursorHome   = "\x1b[H"
	eraseLineEnd = "\x1b[K"
	eraseBelow   = "\x1b[J"
)

// refresh prints each frame in the place of the one before, cut to the
// terminal's present size.
func refresh(w io.Writer) func(*admin.StatsFrame) error {
	begin := eraseScreen
	return func(f *admin.StatsFrame) error {
		lines, err := statsTable(f)
		if err != nil {
			return err
		}
		columns, rows, _ := terminal(w)
		if rows > 1 && len(lines) >= rows {
			more := len(lines) - rows + 2
			lines = append(lines[:rows-2], fmt.Sprintf("... and %d more: v6node stats --no-stream shows all", more))
		}
		var b strings.Builder
		b.WriteString(begin + cursorHome)
		for _, l := range lines {
			if r := []rune(l); columns > 0 && len(r) > columns {
				l = string(r[:columns])
			}
			b.WriteString(l + eraseLineEnd + "\n")
		}
		b.WriteString(eraseBelow)
		begin = ""
		_, err = io.WriteString(w, b.String())
		return err
	}
}
