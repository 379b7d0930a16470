package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/audit"
)

// asCSV is the export's other format.
const asCSV = "csv"

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:     "audit",
		Category: categoryWatch,
		Usage:    "read and check the record of who asked for what",
		Description: `A node writes down who asked for which algorithm on which databases, what its
policy decided and why, when it ran, how it ended and how many bytes left the
machine. Each entry is chained to the one before it by a hash, so that a changed
or missing entry is found. These commands read the files in the state
directory: no node needs to run.

Examples:
   v6node audit verify
   v6node audit tail -f
   v6node audit export --since 720h -o csv > november.csv`,
		HideHelpCommand: true,
		OnUsageError:    usageError,
		Subcommands: []*cli.Command{
			stationCommand(asTable, &cli.Command{
				Name:  "verify",
				Usage: "check that no entry was changed or removed",
				Description: `Checks the whole chain, also while the node runs, and prints its head. Keep that
elsewhere: whoever can write to the directory can make a whole new chain, which
only an earlier head exposes.

The exit code is 1 where the chain is broken; the message names file and line.

Examples:
   v6node audit verify
   v6node audit verify --head 17:5f2c0c6e...`,
				Flags:  []cli.Flag{&cli.StringFlag{Name: "head", Usage: "also check that the chain has this entry: `SEQ:HASH` as an earlier verify printed it"}},
				Action: auditVerify,
			}),
			stationCommand(asTable, &cli.Command{
				Name:  "tail",
				Usage: "show the last entries",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new entries until Ctrl-C"},
					&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Usage: "show the last `N` entries", Value: 20},
				},
				Action: auditTail,
			}),
			stationCommand("", &cli.Command{
				Name:  "export",
				Usage: "print entries as JSON lines or CSV",
				Description: `Prints the entries that match, the oldest first. As JSON each line is exactly as
it was written, so that a whole export can be checked like the files themselves.`,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "print as `FORMAT`: json or csv", Value: asJSON},
					sinceFlag("entries"),
					&cli.StringFlag{Name: "until", Usage: "leave out the entries from `TIME` on, in the forms of --since"},
					&cli.StringSliceFlag{Name: "filter", Usage: "show only the entries for which `KEY=VALUE` holds; keys: event, run, task, organization, user"},
				},
				Action: auditExport,
			}),
		},
	}
}

func auditDir(c *cli.Context) (string, error) {
	dir, err := chooseStateDir(c.Path("state-dir"), c.Path("config"))
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, audit.DirName)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("there is no audit log: %w: name the node with --state-dir or --config", err)
	}
	return dir, nil
}

func auditVerify(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	var known *audit.Head
	if s := c.String("head"); s != "" {
		h, err := audit.ParseHead(s)
		if err != nil {
			return cli.Exit(err.Error(), exitUsage)
		}
		known = &h
	}
	dir, err := auditDir(c)
	if err != nil {
		return err
	}
	r, err := audit.Verify(dir, known)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, r)
	}
	fmt.Fprintf(c.App.Writer, "The chain of %d entries in %d files is whole.\n", r.Entries, r.Files)
	if r.First > 1 {
		fmt.Fprintf(c.App.Writer, "It begins with entry %d: older files were taken away.\n", r.First)
	}
	_, err = fmt.Fprintf(c.App.Writer, "Head: %s\n", r.Head)
	return err
}

func auditTail(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	if c.Int("lines") < 0 {
		return cli.Exit("--lines is a number of entries, 0 or more", exitUsage)
	}
	dir, err := auditDir(c)
	if err != nil {
		return err
	}
	show := auditPrinter(c)
	if !c.Bool("follow") {
		return audit.Tail(dir, c.Int("lines"), show)
	}
	return interrupted(c.Context, audit.Follow(c.Context, dir, c.Int("lines"), show))
}

// auditPrinter prints in columns of fixed width: the next entry is not known yet.
func auditPrinter(c *cli.Context) func(*audit.Line) error {
	if wantsJSON(c) {
		return func(l *audit.Line) error { return printRaw(c, l) }
	}
	const form = "%-7s  %-19s  %-12s  %-8s  %-8s  %-6s  %s\n"
	header := true
	return func(l *audit.Line) error {
		e, err := l.Entry()
		if err != nil {
			return err
		}
		if header {
			fmt.Fprintf(c.App.Writer, form, "SEQ", "TIME", "EVENT", "RUN", "ORG", "USER", "WHAT")
			header = false
		}
		_, err = fmt.Fprintf(c.App.Writer, form, strconv.FormatUint(e.Seq, 10), e.Time.Local().Format(time.DateTime), printable(string(e.Event)),
			dash(number(e.Run)), dash(number(e.Organization)), dash(number(e.User)), printable(dash(auditText(e))))
		return err
	}
}

// auditText is what an entry tells beside who and when.
func auditText(e *audit.Entry) string {
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if e.Allowed != nil {
		add(map[bool]string{true: "allowed", false: "refused"}[*e.Allowed])
	}
	add(e.Function)
	if len(e.Databases) > 0 {
		add("on " + strings.Join(e.Databases, ","))
	}
	if e.Pinned != "" {
		add(e.Pinned)
	} else {
		add(e.Image)
	}
	add(e.Status)
	if e.BytesOut != nil {
		add(strconv.FormatInt(*e.BytesOut, 10) + " bytes out")
	}
	for _, k := range e.Connections {
		if k.Connections+k.Failed > 0 {
			add(fmt.Sprintf("%s %d/%d bytes", connectionName(k), k.Sent, k.Received))
		}
	}
	add(e.Reason)
	if e.Actor != "" {
		add("by " + e.Actor)
	}
	return strings.Join(parts, "; ")
}

func printRaw(c *cli.Context, l *audit.Line) error {
	_, err := fmt.Fprintf(c.App.Writer, "%s\n", l.Raw)
	return err
}

func auditExport(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	format := c.String("output")
	if format != asJSON && format != asCSV {
		return cli.Exit(fmt.Sprintf("the output format %q is not known: use json or csv", format), exitUsage)
	}
	matches, err := auditFilter(c)
	if err != nil {
		return err
	}
	dir, err := auditDir(c)
	if err != nil {
		return err
	}
	show := func(l *audit.Line, _ *audit.Entry) error { return printRaw(c, l) }
	table := csv.NewWriter(c.App.Writer)
	if format == asCSV {
		if err := table.Write(auditColumns); err != nil {
			return err
		}
		show = func(_ *audit.Line, e *audit.Entry) error { return table.Write(auditRecord(e)) }
	}
	err = audit.Each(dir, func(l *audit.Line) error {
		if !l.Whole {
			return nil
		}
		e, err := l.Entry()
		if err != nil {
			return err
		}
		if !matches(e) {
			return nil
		}
		return show(l, e)
	})
	table.Flush()
	if err != nil {
		return err
	}
	return table.Error()
}

func auditFilter(c *cli.Context) (func(*audit.Entry) bool, error) {
	wanted, err := parseFilters(c.StringSlice("filter"), "event", "run", "task", "organization", "user")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	from, err := since(c, now)
	if err != nil {
		return nil, err
	}
	until, err := timeFlag(c, "until", now)
	if err != nil {
		return nil, err
	}
	return func(e *audit.Entry) bool {
		if e.Time.Before(from) || !until.IsZero() && !e.Time.Before(until) {
			return false
		}
		return holds(wanted, map[string]string{
			"event": string(e.Event), "run": decimal(e.Run), "task": decimal(e.Task), "organization": decimal(e.Organization), "user": decimal(e.User),
		})
	}, nil
}

// auditColumns are the columns of a CSV export.
var auditColumns = []string{
	"seq", "time", "event", "node", "run", "task", "parent", "collaboration", "organization", "user", "image", "pinned", "function", "databases",
	"allowed", "reason", "started_at", "finished_at", "exit_code", "status", "outcome", "bytes_out", "connections", "actor",
}

// connectionName names a connection: AT, or AT>TARGET where one AT leads to several.
func connectionName(k audit.Connection) string {
	if k.Kind == "whitelist" {
		return k.At + ">" + k.Target
	}
	return k.At
}

// connectionsCell writes connections into one cell: NAME=SENT/RECEIVED, with blanks between.
func connectionsCell(list []audit.Connection) string {
	var out []string
	for _, k := range list {
		out = append(out, fmt.Sprintf("%s=%d/%d", connectionName(k), k.Sent, k.Received))
	}
	return strings.Join(out, " ")
}

func auditRecord(e *audit.Entry) []string {
	stamp := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Format(time.RFC3339Nano)
	}
	optional := func(n *int64) string {
		if n == nil {
			return ""
		}
		return decimal(*n)
	}
	allowed, exit := "", ""
	if e.Allowed != nil {
		allowed = strconv.FormatBool(*e.Allowed)
	}
	if e.ExitCode != nil {
		exit = strconv.Itoa(*e.ExitCode)
	}
	out := []string{
		strconv.FormatUint(e.Seq, 10), stamp(e.Time), string(e.Event), e.Node, number(e.Run), number(e.Task), number(e.Parent),
		number(e.Collaboration), number(e.Organization), number(e.User), e.Image, e.Pinned, e.Function, strings.Join(e.Databases, " "),
		allowed, e.Reason, stamp(e.StartedAt), stamp(e.FinishedAt), exit, e.Status, e.Outcome, optional(e.BytesOut), connectionsCell(e.Connections), e.Actor,
	}
	for i, cell := range out {
		out[i] = inert(cell)
	}
	return out
}

// inert keeps a cell from being taken for a formula by a spreadsheet: image
// names and functions come from others.
func inert(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
