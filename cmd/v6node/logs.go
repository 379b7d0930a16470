package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/admin"
)

func logsCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:      "logs",
		Category:  categoryWatch,
		Usage:     "show what a run's algorithm printed",
		ArgsUsage: "RUN",
		Description: `Prints the standard output and standard error of a run's algorithm to standard
output and standard error. RUN is an id, or "latest".

Examples:
   v6node logs 101
   v6node logs -f --tail 20 latest
   v6node logs --since 10m -t 101
   v6node logs -o json 101 | jq -r 'select(.stream == "stderr").text'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the algorithm has ended"},
			sinceFlag("lines"),
			&cli.StringFlag{Name: "tail", Aliases: []string{"n"}, Usage: "print only the last `N` lines", Value: "all"},
			&cli.BoolFlag{Name: "timestamps", Aliases: []string{"t"}, Usage: "print each line's time before it"},
		},
		Action: logs,
	})
}

func logs(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	o := admin.LogOptions{Follow: c.Bool("follow")}
	var err error
	if o.Since, err = since(c, time.Now()); err != nil {
		return err
	}
	if tail := c.String("tail"); tail != "all" && tail != "-1" {
		n, err := strconv.Atoi(tail)
		if err != nil || n < 0 {
			return cli.Exit(fmt.Sprintf("--tail %q is not a number of lines: use 20, or all", tail), exitUsage)
		}
		o.Tail = &n
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	run, err := runOf(c.Context, s, c.Args().First())
	if err != nil {
		return err
	}
	show := logPrinter(c)
	err = s.Logs(c.Context, run, o, show)
	if o.Follow {
		err = interrupted(c.Context, err)
	}
	return err
}

// logLine is a line in JSON: text instead of bytes.
type logLine struct {
	Time    time.Time `json:"time,omitzero"`
	Stream  string    `json:"stream"`
	Text    string    `json:"text"`
	Partial bool      `json:"partial,omitempty"`
}

func logPrinter(c *cli.Context) func(*admin.LogLine) error {
	if wantsJSON(c) {
		return func(l *admin.LogLine) error {
			return printJSONLine(c.App.Writer, logLine{Time: l.Time, Stream: l.Stream, Text: strings.ToValidUTF8(string(l.Text), "\uFFFD"), Partial: l.Partial})
		}
	}
	out, errOut := newLogWriter(c.App.Writer, c.Bool("timestamps")), newLogWriter(c.App.ErrWriter, c.Bool("timestamps"))
	return func(l *admin.LogLine) error {
		if l.Stream == "stderr" {
			return errOut.line(l)
		}
		return out.line(l)
	}
}

// logWriter prints the lines of one stream.
type logWriter struct {
	w      io.Writer
	times  bool
	screen bool // a terminal, which an algorithm must not steer
	open   bool // the last line goes on
}

func newLogWriter(w io.Writer, times bool) *logWriter {
	_, _, screen := terminal(w)
	return &logWriter{w: w, times: times, screen: screen}
}

func (w *logWriter) line(l *admin.LogLine) error {
	var b []byte
	if w.times && !w.open {
		b = append(l.Time.UTC().AppendFormat(b, time.RFC3339Nano), ' ')
	}
	if w.screen {
		b = append(b, harmless(string(l.Text))...)
	} else {
		b = append(b, l.Text...)
	}
	if w.open = l.Partial; !l.Partial {
		b = append(b, '\n')
	}
	_, err := w.w.Write(b)
	return err
}

// harmless shows control characters instead of obeying them, tabs excepted. A
// carriage return, which progress bars use, becomes a new line.
func harmless(s string) string {
	s = strings.ReplaceAll(strings.TrimRight(s, "\r"), "\r", "\n")
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || r == '\t' || r == '\n' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func sinceFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "since", Usage: "leave out the " + what + " before `TIME`: 10m before now, 2026-01-31 or 2026-01-31T15:04:05Z"}
}

func since(c *cli.Context, now time.Time) (time.Time, error) { return timeFlag(c, "since", now) }

// timeFlag reads a flag for a time: a duration before now, a date, or a date and
// time, of this machine's time zone if it names none. The zero time is none.
func timeFlag(c *cli.Context, flag string, now time.Time) (time.Time, error) {
	s := c.String(flag)
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := units.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, cli.Exit(fmt.Sprintf("--%s %q is not a time: use 10m, 2026-01-31 or 2026-01-31T15:04:05Z", flag, s), exitUsage)
}
