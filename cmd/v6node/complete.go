package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image/imported"
)

// completeCommandName is what the shells' scripts call, with the words behind
// the program's name up to the cursor.
const completeCommandName = "__complete"

// completeTime bounds the question to the node while somebody waits at a
// prompt, completeRuns the ids that are offered.
const (
	completeTime = time.Second
	completeRuns = 100
)

// A candidate is a word that fits, and what it means.
type candidate struct{ word, meaning string }

// Where files are wanted the shell completes by itself, told by this word.
const filesWanted = ":files"

func completeCommand() *cli.Command {
	return &cli.Command{Name: completeCommandName, Hidden: true, SkipFlagParsing: true, HideHelp: true, Action: complete}
}

// complete prints the candidates, a word, a tab and its meaning each.
func complete(c *cli.Context) error {
	for _, k := range candidates(c.Context, c.App, c.Args().Slice()) {
		if _, err := fmt.Fprintf(c.App.Writer, "%s\t%s\n", printable(k.word), printable(k.meaning)); err != nil {
			return err
		}
	}
	return nil
}

// candidates finds what the last of the words, which may be empty, can become.
func candidates(ctx context.Context, app *cli.App, words []string) []candidate {
	if len(words) == 0 {
		words = []string{""}
	}
	before, current := words[:len(words)-1], words[len(words)-1]
	commands, at := app.Commands, 0
	var cmd *cli.Command
	for at < len(before) {
		next := commandNamed(commands, before[at])
		if next == nil {
			break
		}
		cmd, commands, at = next, next.Subcommands, at+1
	}
	before = before[at:]
	switch {
	case (cmd == nil || len(cmd.Subcommands) > 0) && len(before) > 0: // a command that does not exist
		return nil
	case cmd == nil || len(cmd.Subcommands) > 0:
		return fitting(current, commandCandidates(commands))
	case cmd.SkipFlagParsing:
		return nil
	}
	if len(before) > 0 {
		if last := before[len(before)-1]; strings.HasPrefix(last, "-") && takesNext(cmd, last) {
			return valueCandidates(cmd, last, current)
		}
	}
	if flag, value, ok := strings.Cut(current, "="); ok && strings.HasPrefix(flag, "-") {
		out := valueCandidates(cmd, flag, value)
		for i := range out {
			if out[i].word != filesWanted {
				out[i].word = flag + "=" + out[i].word
			}
		}
		return out
	}
	if strings.HasPrefix(current, "-") {
		return fitting(current, flagCandidates(cmd))
	}
	return fitting(current, argCandidates(ctx, cmd, before))
}

func fitting(prefix string, all []candidate) []candidate {
	var out []candidate
	for _, k := range all {
		complete := k.word == prefix && strings.HasSuffix(prefix, "=") // as far as we know it
		if k.word == filesWanted || strings.HasPrefix(k.word, prefix) && !complete {
			out = append(out, k)
		}
	}
	return out
}

func commandCandidates(commands []*cli.Command) []candidate {
	var out []candidate
	for _, c := range commands {
		if !c.Hidden {
			out = append(out, candidate{c.Name, c.Usage})
		}
	}
	return out
}

func flagCandidates(cmd *cli.Command) []candidate {
	var out []candidate
	for _, f := range cmd.Flags {
		usage := ""
		if d, ok := f.(cli.DocGenerationFlag); ok {
			usage = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		for _, name := range f.Names() {
			if len(name) > 1 {
				out = append(out, candidate{"--" + name, usage})
			}
		}
	}
	return append(out, candidate{"--help", "show help"})
}

// valueCandidates are the values of a flag.
func valueCandidates(cmd *cli.Command, flag, current string) []candidate {
	f := flagNamed(cmd, strings.TrimLeft(flag, "-"))
	if f == nil {
		return nil
	}
	if _, isPath := f.(*cli.PathFlag); isPath {
		return []candidate{{filesWanted, ""}}
	}
	var values []string
	switch f.Names()[0] {
	case "output":
		values = []string{asTable, asJSON}
		if s, ok := f.(*cli.StringFlag); ok && s.Value == asYAML {
			values[0] = asYAML
		}
	case "log-level":
		values = []string{"debug", "info", "warn", "error"}
	case "log-format":
		values = config.LogFormats
	case "filter":
		if cmd.Name == "events" {
			values = []string{"type=", "run=", "task="}
			break
		}
		values = []string{"status=", "reason=", "task=", "job=", "organization=", "user=", "image=", "id="}
		for _, s := range []admin.State{admin.Held, admin.Queued, admin.Preparing, admin.Starting, admin.Running, admin.Delivering, admin.Done} {
			values = append(values, "status="+string(s))
		}
	}
	var out []candidate
	for _, v := range values {
		out = append(out, candidate{v, ""})
	}
	return fitting(current, out)
}

// argCandidates are the arguments of a command: for most, the node's runs; for some,
// files or images.
func argCandidates(ctx context.Context, cmd *cli.Command, before []string) []candidate {
	if cmd.Name == "completion" {
		var out []candidate
		for _, s := range shells() {
			out = append(out, candidate{s.name, ""})
		}
		return out
	}
	switch usage := cmd.ArgsUsage; {
	case strings.Contains(usage, "OLD"), strings.Contains(usage, "FILE"):
		return []candidate{{filesWanted, ""}}
	case strings.Contains(usage, "IMAGE"):
		return imageCandidates(cmd, before)
	case !strings.Contains(usage, "RUN"):
		return nil
	}
	out := []candidate{{latest, "the newest run"}}
	dir, err := dirOfWords(cmd, before)
	if err != nil {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	// Those that are over have no processes and cannot be ended.
	all := cmd.Name == "logs" || cmd.Name == "inspect"
	// What fails here would only disturb the prompt.
	_ = admin.NewClient(dir).Runs(ctx, admin.RunQuery{All: all}, func(r *admin.Run) error {
		if (cmd.Name == "approve" || cmd.Name == "deny") && r.State != admin.Held {
			return nil
		}
		out = append(out, candidate{decimal(r.ID), r.Image + " " + status(r, time.Now())})
		if len(out) > completeRuns {
			return errEnough
		}
		return nil
	})
	return out
}

// imageCandidates are the images that were imported.
func imageCandidates(cmd *cli.Command, before []string) []candidate {
	dir, err := dirOfWords(cmd, before)
	if err != nil {
		return nil
	}
	// What fails here would only disturb the prompt.
	list, _ := listImported(imported.Open(filepath.Join(dir, imported.Directory)))
	var out []candidate
	for _, i := range list {
		for _, name := range i.Names {
			out = append(out, candidate{name, humanSize(i.Size) + ", imported " + ago(i.UsedAt)})
		}
	}
	return out
}

// dirOfWords finds the node that the unfinished command line means.
func dirOfWords(cmd *cli.Command, words []string) (string, error) {
	named := func(flag string) string {
		f, value := flagNamed(cmd, flag), ""
		for i, w := range words {
			name, v, joined := strings.Cut(w, "=")
			if !strings.HasPrefix(w, "-") || !slices.Contains(f.Names(), strings.TrimLeft(name, "-")) {
				continue
			}
			if joined {
				value = v
			} else if i+1 < len(words) {
				value = words[i+1]
			}
		}
		return value
	}
	return chooseStateDir(named("state-dir"), named("config"))
}
