package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst puts a command's flags before its arguments, which the command
// line library wants, so that they may stand anywhere, as with Podman:
// "logs 101 -f". After "--" nothing is moved.
func flagsFirst(commands []*cli.Command, args []string) []string {
	if len(args) < 2 {
		return args
	}
	at, cmd := 1, (*cli.Command)(nil)
	for at < len(args) {
		next := commandNamed(commands, args[at])
		if next == nil {
			break
		}
		cmd, commands, at = next, next.Subcommands, at+1
	}
	if cmd == nil || len(cmd.Subcommands) > 0 || cmd.SkipFlagParsing {
		return args
	}
	var flags, rest []string
	for i := at; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		flags = append(flags, arg)
		if takesNext(cmd, arg) && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return slices.Concat(args[:at], flags, rest)
}

func commandNamed(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// takesNext reports whether the word is a flag whose value is the next word.
func takesNext(cmd *cli.Command, word string) bool {
	name := strings.TrimLeft(word, "-")
	if strings.Contains(name, "=") {
		return false
	}
	if f := flagNamed(cmd, name); f != nil {
		return takesValue(f)
	}
	if !strings.HasPrefix(word, "--") { // short ones in one word, such as -ft: the last may take a value
		f := flagNamed(cmd, name[len(name)-1:])
		return f != nil && takesValue(f)
	}
	return false
}

func flagNamed(cmd *cli.Command, name string) cli.Flag {
	for _, f := range cmd.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
