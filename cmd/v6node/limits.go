package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/limits"
)

// limitFlags are the flags of run that set limits, with Podman's names.
func limitFlags() []cli.Flag {
	var out []cli.Flag
	for _, f := range limits.Fields() {
		var aliases []string
		if f.Alias != "" {
			aliases = []string{f.Alias}
		}
		if f.Form == limits.List {
			out = append(out, &cli.StringSliceFlag{Name: f.Flag, Aliases: aliases, Usage: f.Usage, Category: "Limits of each run:"})
			continue
		}
		out = append(out, &cli.StringFlag{Name: f.Flag, Aliases: aliases, Usage: f.Usage, Category: "Limits of each run:"})
	}
	return out
}

// overrideLimits lets the command line win over the file's limits. Its rules for
// some runs still apply on top.
func overrideLimits(cfg *config.Config, c *cli.Context) error {
	var change limits.Change
	flags := map[string]string{}
	for _, f := range limits.Fields() {
		flags[f.Key] = f.Flag
		if !c.IsSet(f.Flag) {
			continue
		}
		values := []string{c.String(f.Flag)}
		if f.Form == limits.List {
			values = c.StringSlice(f.Flag)
		}
		if err := change.Set(f, values...); err != nil {
			return cli.Exit(fmt.Sprintf("--%s: %v", f.Flag, err), exitUsage)
		}
	}
	cfg.Limits = change.Apply(cfg.Limits)
	for _, p := range cfg.Limits.Check() {
		return cli.Exit(fmt.Sprintf("--%s does not fit the other limits: %s", flags[p.Key], p.Text), exitUsage)
	}
	return nil
}
