package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/integration/demo"
	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/node/boot"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show a federated analysis on this machine, from end to end",
		Description: `Starts a stand-in vantage6 server, a containerd, and three nodes of three
organizations with a CSV file each; runs a federated average over an encrypted
collaboration; prints each step with its time and checks the result. Nothing
outside a temporary directory is touched, and that is removed at the end. Needs
no network. Without root it needs what docs/rootless.md says, and each node has a
containerd of its own.

Example:
   v6node demo`,
		OnUsageError: usageError,
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "bundle-dir", Usage: "find the managed containerd's programs in `DIR`", EnvVars: []string{"V6NODE_BUNDLE"}},
			&cli.BoolFlag{Name: "keep", Usage: "keep the temporary directory, with the nodes' logs"},
		},
		Action: runDemo,
	}
}

func runDemo(c *cli.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	plugin, err := pluginExecutable(c)
	if err != nil {
		return err
	}
	programs, err := lab.Find(self, boot.BundleDirs(c.Path("bundle-dir")))
	if err != nil {
		return err
	}
	return demo.Run(c.Context, demo.Options{Programs: programs, PluginBinary: filepath.Clean(plugin), Keep: c.Bool("keep"), Out: c.App.Writer})
}
