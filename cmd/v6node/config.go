package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/newfile"
	"github.com/v6node/v6node/node/config"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check, show and migrate configurations",
		Subcommands: []*cli.Command{
			{
				Name:  "check",
				Usage: "name every error and warning of a configuration",
				Description: `Reads the file as v6node run does, and nothing else: no server, no database. v6node check
looks at those too. Each finding has its line, and behind an arrow what to do about it.

Without --config: the only file in /etc/v6node, for a normal user in ~/.config/v6node.

Exit codes: 0 the file can be used, 2 it cannot.

Examples:
   v6node config check --config /etc/v6node/node.yaml
   v6node config check -c node.yaml -o json | jq -r '.problems[].message'`,
				Flags:        []cli.Flag{configFlag("check the configuration `FILE`"), outputFlag(asTable)},
				OnUsageError: usageError, HideHelpCommand: true, Action: configCheck,
			},
			{
				Name:  "show",
				Usage: "show the configuration that holds, defaults included",
				Description: `Shows every key with the value that holds, and behind it the line of the file that says
so, or default. A key without a value, or whose value depends on the machine, is empty.
Secrets, variables and what of an address may be a password show as ***.

Examples:
   v6node config show --config /etc/v6node/node.yaml
   v6node config show -c node.yaml -o json | jq .configuration.limits`,
				Flags:        []cli.Flag{configFlag("show the configuration `FILE`"), formatFlag(asYAML, asYAML)},
				OnUsageError: usageError, HideHelpCommand: true, Action: configShow,
			},
			{
				Name:      "migrate",
				Usage:     "write the reference node's configuration in v6node's own form",
				ArgsUsage: "OLD [NEW]",
				Description: `Reads a configuration of the reference vantage6 node, also one of version 3 with
application and environments, and writes NEW with what of it means something here; by
default a file of the same name in /etc/v6node, for a normal user in ~/.config/v6node.
A table says of each key whether it was kept, renamed, replaced by another one, changed,
or has no effect and was left out. OLD stays as it is, and nothing is written where it
has a key that v6node does not know.

NEW is readable by its owner only. v6node run reads OLD as well; NEW is without what it
would be warned of.

Examples:
   v6node config migrate ~/.config/vantage6/node/alpha.yaml
   v6node config migrate --dry-run /etc/vantage6/node/alpha.yaml
   v6node config migrate --environment prod alpha.yaml /etc/v6node/alpha.yaml`,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "environment", Usage: "take the settings of the environment `NAME` of a version 3 file (application, prod, acc, test, dev)"},
					&cli.BoolFlag{Name: "dry-run", Usage: "write nothing"},
					&cli.BoolFlag{Name: "force", Usage: "write over NEW if it exists"},
					outputFlag(asTable),
				},
				OnUsageError: usageError, HideHelpCommand: true, Action: configMigrate,
			},
		},
	}
}

// finding is an error or a warning of a configuration.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
	kind    string
}

// configReport is what config check prints as JSON.
type configReport struct {
	File     string    `json:"file"`
	Valid    bool      `json:"valid"`
	Problems []finding `json:"problems"`
	Warnings []finding `json:"warnings"`
}

func foundIn(kind, file string, line int, key, message string) finding {
	what, fix := config.Advice(message)
	return finding{file, line, key, what, fix, kind}
}

func warningsOf(all []config.Warning) []finding {
	out := []finding{}
	for _, w := range all {
		out = append(out, foundIn("warning", w.File, w.Line, w.Key, w.Message))
	}
	return out
}

func configCheck(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	file, err := configFile(c)
	if err != nil {
		return err
	}
	_, warnings, err := config.Load(file)
	r := configReport{File: file, Valid: err == nil, Problems: []finding{}, Warnings: warningsOf(warnings)}
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			r.Problems = append(r.Problems, foundIn("error", p.File, p.Line, p.Key, p.Message))
		}
	} else if err != nil {
		r.Problems = append(r.Problems, finding{File: file, Message: err.Error(), kind: "error"})
	}
	if wantsJSON(c) {
		err = printJSON(c.App.Writer, r)
	} else {
		err = r.print(c.App.Writer)
	}
	if err == nil && !r.Valid {
		err = cli.Exit("", exitUsage)
	}
	return err
}

func (r configReport) print(w io.Writer) error {
	all := slices.Concat(r.Problems, r.Warnings)
	slices.SortStableFunc(all, func(a, b finding) int { return cmp.Compare(a.Line, b.Line) })
	printFindings(w, all)
	_, err := fmt.Fprintf(w, "%s: %d errors, %d warnings\n", printable(r.File), len(r.Problems), len(r.Warnings))
	return err
}

func printFindings(w io.Writer, all []finding) {
	for _, f := range all {
		at := f.File
		if f.Line > 0 {
			at = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		fmt.Fprintf(w, "%s: %s: %s\n", printable(at), f.kind, printable(f.Message))
		if f.Fix != "" {
			fmt.Fprintf(w, "        -> %s\n", printable(f.Fix))
		}
	}
}

func configShow(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	file, err := configFile(c)
	if err != nil {
		return err
	}
	e, err := config.LoadEffective(file)
	if err != nil {
		return err
	}
	for _, w := range e.Warnings {
		fmt.Fprintln(c.App.ErrWriter, "v6node: warning:", printable(w.String()))
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, e)
	}
	text, err := e.YAML()
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(text)
	return err
}

// migrateReport is what config migrate prints as JSON.
type migrateReport struct {
	From        string             `json:"from"`
	To          string             `json:"to"`
	Environment string             `json:"environment,omitempty"`
	Written     bool               `json:"written"`
	Changes     []config.Migration `json:"changes"`
	Warnings    []finding          `json:"warnings"`
}

func configMigrate(c *cli.Context) error {
	if err := wantArgs(c, 1, 2); err != nil {
		return err
	}
	from, to := c.Args().Get(0), c.Args().Get(1)
	if to == "" {
		name := strings.TrimSuffix(filepath.Base(from), filepath.Ext(from))
		to = filepath.Join(configDir(), name+".yaml")
	}
	if a, err := os.Stat(from); err == nil {
		if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
			return cli.Exit(fmt.Sprintf("%s is the file that is migrated, and stays as it is: name another one for what is written", to), exitUsage)
		}
	}
	m, err := config.Migrate(from, to, c.String("environment"))
	if err != nil {
		return err
	}
	r := migrateReport{From: from, To: to, Environment: m.Environment, Changes: m.Changes, Warnings: warningsOf(m.Warnings)}
	if !c.Bool("dry-run") {
		if err := newfile.Write(to, m.Text, c.Bool("force")); errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%w: name another file, or add --force to write over it", err)
		} else if err != nil {
			return fmt.Errorf("the new configuration cannot be written: %w", err)
		}
		r.Written = true
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, r)
	}
	return r.print(c.App.Writer)
}

func (r migrateReport) print(w io.Writer) error {
	t := newTable(w, "LINE", "KEY", "CHANGE", "NOW", "NOTE")
	for _, ch := range r.Changes {
		t.row(decimal(int64(ch.Line)), ch.Key, ch.Change, ch.To, ch.Note)
	}
	if err := t.print(); err != nil {
		return err
	}
	if len(r.Warnings) > 0 {
		fmt.Fprintln(w, "\nLook at these:")
		printFindings(w, r.Warnings)
	}
	if !r.Written {
		_, err := fmt.Fprintf(w, "\nNothing was written (--dry-run); it would be %s.\n", printable(r.To))
		return err
	}
	fmt.Fprintf(w, "\nWrote %s, for its owner only. %s stays as it is.\n", printable(r.To), printable(r.From))
	return printNext(w, nextCommands(r.To))
}

// nextCommands are what is to be done with a new configuration.
func nextCommands(file string) []string {
	out := []string{"v6node check --config " + shellWord(file), "v6node run --config " + shellWord(file)}
	if service := serviceCommand(file, systemConfigDir, "/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"); service != "" {
		out = append(out, service)
	}
	return out
}

// serviceCommand makes a service of a node whose configuration is where the unit
// of v6node looks for it; "" where that is not installed.
func serviceCommand(file, configs string, units ...string) string {
	name, ok := strings.CutSuffix(filepath.Base(file), ".yaml")
	if !ok || filepath.Dir(file) != configs {
		return ""
	}
	for _, dir := range units {
		if _, err := os.Stat(filepath.Join(dir, "v6node@.service")); err == nil {
			return "systemctl enable --now " + shellWord("v6node@"+name)
		}
	}
	return ""
}

func printNext(w io.Writer, commands []string) error {
	fmt.Fprintln(w, "Next:")
	for _, c := range commands {
		if _, err := fmt.Fprintln(w, "  "+printable(c)); err != nil {
			return err
		}
	}
	return nil
}

// shellWord quotes a word for a shell if it has to be.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@%:,=", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
