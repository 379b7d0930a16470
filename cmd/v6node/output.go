package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// Output formats.
const (
	asTable = "table"
	asYAML  = "yaml"
	asJSON  = "json"
)

func outputFlag(standard string) cli.Flag { return formatFlag(standard, asTable) }

// formatFlag chooses between a format for people and JSON.
func formatFlag(standard, people string) cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "print as `FORMAT`: " + people + " or json", Value: standard, Action: func(_ *cli.Context, s string) error {
		if s != people && s != asJSON {
			return cli.Exit(fmt.Sprintf("the output format %q is not known: use %s or json", s, people), exitUsage)
		}
		return nil
	}}
}

func wantsJSON(c *cli.Context) bool { return c.String("output") == asJSON }

// printJSON prints one value, indented for people.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printJSONLine prints one value of many on a line of its own.
func printJSONLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// table prints rows in columns. What it prints may come from a task's author,
// so nothing in it can steer a terminal.
type table struct {
	w *tabwriter.Writer
}

func newTable(w io.Writer, header ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(header...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, printable(dash(c)))
	}
	fmt.Fprintln(t.w)
}

func (t *table) print() error { return t.w.Flush() }

// printable replaces what a terminal would obey instead of show.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		if r == '\t' || r == '\n' {
			return ' '
		}
		return unicode.ReplacementChar
	}, s)
}

// humanSize is a size as Podman shows it: four digits, and units of 1000.
func humanSize(n int64) string {
	f, units := float64(n), []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	i := 0
	for ; math.Abs(f) >= 1000 && i < len(units)-1; i++ {
		f /= 1000
	}
	return fmt.Sprintf("%.4g%s", f, units[i])
}

// humanDuration is a duration as Podman shows it, in its largest unit.
func humanDuration(d time.Duration) string {
	seconds, minutes, hours := int(d.Seconds()), int(d.Minutes()), int(d.Hours()+0.5)
	switch {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 24*7*2:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 24*30*2:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months", hours/24/30)
	}
	return fmt.Sprintf("%d years", hours/24/365)
}

// ago says how long ago t was; "" if it never was.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humanDuration(time.Since(t)) + " ago"
}

// stamp is a moment for people who compare it with logs; "" if it never was.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.RFC3339)
}

func percent(p float64) string { return fmt.Sprintf("%.2f%%", p) }

// cpuTime is a duration to the millisecond, or to the second if it is long.
func cpuTime(d time.Duration) string {
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// terminal returns w's columns and lines; ok is false if it is no terminal.
func terminal(w io.Writer) (columns, lines int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile {
		return 0, 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	return int(size.Col), int(size.Row), true
}
