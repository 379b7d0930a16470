package main

import (
	"fmt"
	"runtime"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func versionCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "version",
		Category: categoryWatch,
		Usage:    "print the versions of this program and of the running node",
		Description: `Prints the version of this program and that of the node, which may run an older one.
If no node runs, it prints its own and exits with ` + strconv.Itoa(exitDown) + `; v6node --version does not ask a node.

Examples:
   v6node version
   v6node version -o json | jq -r .node.version`,
		Action: printVersion,
	})
}

// versions is what the command prints.
type versions struct {
	Client clientVersion  `json:"client"`
	Node   *admin.Version `json:"node"` // null if none answers
}

type clientVersion struct {
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func printVersion(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	v := versions{Client: clientVersion{Version: c.App.Version, Protocol: admin.Protocol, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}}
	s, failed := station(c)
	if failed == nil {
		v.Node, failed = s.Version(c.Context)
	}
	var err error
	if wantsJSON(c) {
		err = printJSON(c.App.Writer, v)
	} else {
		t := newTable(c.App.Writer, "PROGRAM", "VERSION", "PROTOCOL", "GO", "PLATFORM")
		t.row("client", v.Client.Version, strconv.Itoa(v.Client.Protocol), v.Client.Go, v.Client.Platform)
		if v.Node != nil {
			t.row("node", v.Node.Version, strconv.Itoa(v.Node.Protocol))
		}
		err = t.print()
	}
	if failed != nil {
		return fmt.Errorf("ask the node for its version: %w", failed)
	}
	return err
}
