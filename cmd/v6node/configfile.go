package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/config"
)

// systemConfigDir is where nodes of the machine have their configurations, each
// in a file NAME.yaml.
const systemConfigDir = "/etc/v6node"

// configFlag names the configuration. Where it is not given configFile looks for one.
func configFlag(usage string) cli.Flag {
	return &cli.PathFlag{Name: "config", Aliases: []string{"c"}, Usage: usage, EnvVars: []string{"V6NODE_CONFIG"}, TakesFile: true}
}

// configDir is where configurations are looked for and made: of the machine for
// root, else of the user.
func configDir() string {
	if os.Geteuid() == 0 {
		return systemConfigDir
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if home, err := os.UserHomeDir(); err == nil && !filepath.IsAbs(dir) {
		dir = filepath.Join(home, ".config")
	}
	if !filepath.IsAbs(dir) {
		return systemConfigDir
	}
	return filepath.Join(dir, "v6node")
}

// configFile is the configuration that the command line or the environment
// names, else the only one there is.
func configFile(c *cli.Context) (string, error) {
	if path := c.Path("config"); path != "" {
		return path, nil
	}
	return onlyConfig(configDir())
}

// loadConfig reads the configuration of configFile. Its warnings are those of
// config check.
func loadConfig(c *cli.Context) (*config.Config, error) {
	file, err := configFile(c)
	if err != nil {
		return nil, err
	}
	cfg, _, err := config.Load(file)
	return cfg, err
}

func onlyConfig(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return "", cli.Exit(fmt.Sprintf("no configuration is named, and %s cannot be searched for one (%v): name it with --config", dir, err), exitUsage)
	}
	var found []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	switch len(found) {
	case 0:
		return "", cli.Exit(fmt.Sprintf("no configuration is named, and there is none in %s: name it with --config, or make one with v6node init", dir), exitUsage)
	case 1:
		return found[0], nil
	}
	return "", cli.Exit(fmt.Sprintf("no configuration is named, and there are several: name one with --config:\n  %s", strings.Join(found, "\n  ")), exitUsage)
}
