package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/install"
	"github.com/v6node/v6node/node/boot"
	"github.com/v6node/v6node/runtime/embedded"
)

func layoutFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "user", Usage: "in the home of a normal user: ~/.local"},
		&cli.PathFlag{Name: "prefix", Usage: "below `DIR`", Value: install.DefaultPrefix},
		&cli.PathFlag{Name: "destdir", Usage: "put `DIR` before every path, to stage a package; nothing of this machine is told"},
		outputFlag(asTable),
	}
}

func installCommand() *cli.Command {
	return &cli.Command{
		Name:  "install",
		Usage: "install or upgrade v6node on this machine",
		Description: `Installs this program, the managed containerd's programs, the systemd units and the
completions of shells; over another version it upgrades, or downgrades. Running nodes
and algorithms go on; a node is of the new version when it is restarted, and takes its
algorithms over. State and configuration are not touched.

Examples:
   sudo v6node install            # in /usr/local
   v6node install --user          # in ~/.local, for a node without root
   v6node install --no-bundle     # where nodes use a runtime that the machine has`,
		OnUsageError: usageError,
		Flags: append(layoutFlags(),
			&cli.PathFlag{Name: "bundle-dir", Usage: "take the managed containerd's programs from `DIR`", EnvVars: []string{"V6NODE_BUNDLE"}},
			&cli.BoolFlag{Name: "no-bundle", Usage: "leave the managed containerd out: nodes need --cri-endpoint then"}),
		HideHelpCommand: true,
		Action:          runInstall,
	}
}

func uninstallCommand() *cli.Command {
	return &cli.Command{
		Name:  "uninstall",
		Usage: "remove what install has written",
		Description: `Removes all that v6node install or make install has written, and the links that start
nodes with the machine. It refuses, with exit code ` + strconv.Itoa(exitInPlace) + `, while a node or an algorithm runs. The nodes'
states (ledgers, audit logs, images, undelivered results) and configurations (API keys)
are kept, unless --purge is given. A package is removed by the package manager.

Examples:
   sudo v6node uninstall
   v6node uninstall --user
   sudo v6node uninstall --purge  # /var/lib/v6node and /etc/v6node too`,
		OnUsageError:    usageError,
		Flags:           append(layoutFlags(), &cli.BoolFlag{Name: "purge", Usage: "remove the nodes' states and configurations as well"}),
		HideHelpCommand: true,
		Action:          runUninstall,
	}
}

// installLayout says where the command line wants an installation.
func installLayout(c *cli.Context) (install.Layout, error) {
	refuse := func(text string) (install.Layout, error) {
		return install.Layout{}, cli.Exit(text, exitUsage)
	}
	if err := wantArgs(c, 0, 0); err != nil {
		return install.Layout{}, err
	}
	if c.Bool("user") {
		switch {
		case c.IsSet("prefix") || c.IsSet("destdir"):
			return refuse("--user says where it goes: leave --prefix and --destdir out")
		case os.Geteuid() == 0:
			return refuse("--user is for normal users: log in as the one who is to run the node, or leave it out to install for the machine")
		}
		return install.User()
	}
	for _, flag := range []string{"prefix", "destdir"} {
		if dir := c.Path(flag); dir != "" && !filepath.IsAbs(dir) {
			return refuse(fmt.Sprintf("--%s %s is not an absolute path", flag, dir))
		}
	}
	if os.Geteuid() != 0 && c.Path("destdir") == "" {
		return install.Layout{}, cli.Exit("only root installs for the whole machine: use sudo, or --user for your own home", exitRefused)
	}
	return install.System(filepath.Clean(c.Path("prefix")), c.Path("destdir")), nil
}

func runInstall(c *cli.Context) error {
	l, err := installLayout(c)
	if err != nil {
		return err
	}
	s := install.Source{Version: c.App.Version, Completions: map[string][]byte{}}
	if s.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("find the own program: %w", err)
	}
	if s.Plugin, err = pluginExecutable(c); err != nil {
		return err
	}
	if s.Plugin == s.Program {
		s.Plugin = ""
	}
	if !c.Bool("no-bundle") {
		bundle, err := embedded.FindBundle(boot.BundleDirs(c.Path("bundle-dir"))...)
		if err != nil {
			return fmt.Errorf("%w; --no-bundle installs without them", err)
		}
		s.Bundle = bundle.Dir
	}
	for _, sh := range shells() {
		s.Completions[sh.name] = []byte(sh.script)
	}
	r, err := install.Install(c.Context, l, s)
	if err != nil {
		return permission(err)
	}
	if l.DestDir == "" && r.Changed {
		tellSystem(c, l, "install")
	}
	if err := printInstall(c, r); err != nil || wantsJSON(c) {
		return err
	}
	for _, line := range afterInstall(l, r) {
		fmt.Fprintln(c.App.Writer, line)
	}
	return nil
}

// afterInstall says what the administrator does next.
func afterInstall(l install.Layout, r install.Report) []string {
	switch {
	case l.DestDir != "":
		return nil
	case r.Before != "" && !r.Changed:
		return []string{"v6node " + r.Version + " was installed already; nothing has changed"}
	case r.Before != "" && l.User:
		return []string{"restart the node to use it (algorithms go on): systemctl --user restart v6node"}
	case r.Before != "":
		return []string{"restart the nodes to use it (algorithms go on): systemctl restart 'v6node@*'"}
	case l.User:
		return []string{
			"put the node's configuration into " + filepath.Join(l.ConfigDir, "node.yaml"),
			"see what the machine lacks:  " + l.Program() + " check",
			"start the node:              systemctl --user enable --now v6node",
		}
	}
	return []string{
		"put the configuration of a node NAME into " + filepath.Join(l.ConfigDir, "NAME.yaml"),
		"see what the machine lacks:  v6node check",
		"start the node:              systemctl enable --now v6node@NAME",
	}
}

func runUninstall(c *cli.Context) error {
	l, err := installLayout(c)
	if err != nil {
		return err
	}
	r, err := install.Uninstall(c.Context, l, c.Bool("purge"))
	if err != nil {
		return permission(err)
	}
	if l.DestDir == "" && r.Changed {
		tellSystem(c, l, "uninstall")
	}
	if r.Before == "" {
		fmt.Fprintf(c.App.ErrWriter, "v6node: nothing is installed in %s: name another with --prefix; a package is removed by the package manager\n", l.Prefix)
	}
	if err := printInstall(c, r); err != nil || wantsJSON(c) {
		return err
	}
	for _, f := range r.Files {
		if f.State == install.Kept {
			fmt.Fprintf(c.App.Writer, "kept: %s (remove it with --purge, or by hand)\n", f.Path)
		}
	}
	return nil
}

// tellSystem lets systemd know of the change. That it cannot be told keeps
// nobody from using what is installed, so it is a warning.
func tellSystem(c *cli.Context, l install.Layout, what string) {
	run := func(name string, args ...string) {
		if _, err := exec.LookPath(name); err != nil {
			return
		}
		if out, err := exec.CommandContext(c.Context, name, args...).CombinedOutput(); err != nil {
			fmt.Fprintf(c.App.ErrWriter, "v6node: warning: %s %s: %v: %s\n", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	if l.User {
		if isSocket(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "systemd", "private")) {
			run("systemctl", "--user", "daemon-reload")
		}
		return
	}
	if what == "install" {
		run("systemd-tmpfiles", "--create", filepath.Join(l.Prefix, "lib", "tmpfiles.d", "v6node.conf"))
	}
	if isSocket("/run/systemd/private") {
		run("systemctl", "daemon-reload")
	}
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() == os.ModeSocket
}

// permission says what to do where a directory may not be written to.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w: use a directory that you may write to, or become root", err)
	}
	return err
}

func printInstall(c *cli.Context, r install.Report) error {
	if wantsJSON(c) {
		return printJSON(c.App.Writer, r)
	}
	if !r.Changed {
		return nil
	}
	t := newTable(c.App.Writer, "STATE", "PATH")
	for _, f := range r.Files {
		if f.State != install.Unchanged {
			t.row(f.State, f.Path)
		}
	}
	return t.print()
}
