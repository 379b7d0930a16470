package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/cni"
)

func cniCommand() *cli.Command {
	dirs := []cli.Flag{
		&cli.StringFlag{Name: "conf-dir", Usage: "`DIR` where the runtime reads its networks", Value: cni.DefaultConfDir},
		&cli.StringFlag{Name: "bin-dir", Usage: "`DIR` where the runtime finds its CNI plugins", Value: cni.DefaultBinDir},
		&cli.StringFlag{Name: "runtime", Usage: "`NAME` of the runtime: containerd, or crio for its drop-in files as well", Value: runtimeContainerd},
		&cli.StringFlag{Name: "drop-in-dir", Usage: "`DIR` of CRI-O's drop-in files", Value: cni.DefaultCRIODir},
		&cli.StringFlag{Name: "registries-dir", Usage: "`DIR` of the drop-in files for CRI-O's registries", Value: cni.DefaultRegistriesDir},
	}
	output := &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FORMAT` of the report: table or json", Value: "table"}
	plugin := &cli.PathFlag{Name: "plugin", Usage: "`FILE` to install as the plugin (default: " + pluginProgram + " beside v6node or in its libexec, else v6node itself)"}
	return &cli.Command{
		Name:  "cni",
		Usage: "manage the sandbox network of an external container runtime",
		Description: "The node's own containerd needs none of this. For a runtime that was there before, install\n" +
			"puts the CNI plugin and its configuration where that runtime looks for them.",
		Subcommands: []*cli.Command{
			{
				Name:  "install",
				Usage: "install or renew the plugin and its configuration",
				Flags: append(slices.Clip(dirs), plugin, output, &cli.BoolFlag{Name: "force",
					Usage: "install even if the runtime already has another network"}),
				Action:       cniInstall,
				OnUsageError: usageError,
			},
			{
				Name:         "uninstall",
				Usage:        "remove the plugin and its configuration, and nothing else",
				Flags:        append(slices.Clip(dirs), output),
				Action:       cniUninstall,
				OnUsageError: usageError,
			},
			{
				Name: "show",
				Usage: fmt.Sprintf("say what is installed; exits with %d if new sandboxes would not get this network",
					exitNotInEffect),
				Flags:        append(slices.Clip(dirs), plugin, output),
				Action:       cniShow,
				OnUsageError: usageError,
			},
		},
	}
}

// The runtimes that --runtime knows.
const (
	runtimeContainerd = "containerd"
	runtimeCRIO       = "crio"
)

// cniLayout says which directories a command works on.
func cniLayout(c *cli.Context) cni.Layout {
	l := cni.Layout{ConfDir: c.String("conf-dir"), BinDir: c.String("bin-dir")}
	if c.String("runtime") == runtimeCRIO {
		l.CRIO = &cni.CRIO{Dir: c.String("drop-in-dir"), RegistriesDir: c.String("registries-dir")}
	}
	return l
}

// pluginProgram is the small program that is nothing but the plugin. It starts
// several times faster than v6node, and a runtime starts it twice a sandbox.
const pluginProgram = "v6node-cni"

// pluginExecutable finds what to install as the plugin.
func pluginExecutable(c *cli.Context) (string, error) {
	if file := c.Path("plugin"); file != "" {
		return file, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the own program, name it with --plugin: %w", err)
	}
	bin := filepath.Dir(self)
	for _, dir := range []string{bin, filepath.Join(bin, "..", "libexec", "v6node")} {
		if small := filepath.Join(dir, pluginProgram); isFile(small) {
			return small, nil
		}
	}
	return self, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func cniInstall(c *cli.Context) error {
	if err := checkCNIArgs(c); err != nil {
		return err
	}
	executable, err := pluginExecutable(c)
	if err != nil {
		return err
	}
	var opts []cni.InstallOption
	if c.Bool("force") {
		opts = append(opts, cni.Force())
	}
	report, err := cni.Install(cniLayout(c), executable, opts...)
	if err != nil {
		return err
	}
	if report.CRIO != nil && report.Changed {
		fmt.Fprintln(c.App.ErrWriter, "v6node: restart CRI-O so that it reads its drop-in files (systemctl restart crio); containers go on meanwhile")
	}
	for _, o := range report.Others {
		if !o.Earlier || report.CRIO != nil {
			fmt.Fprintf(c.App.ErrWriter, "v6node: warning: new sandboxes of this runtime no longer get %s\n", o)
		}
	}
	return printCNI(c, report)
}

func cniUninstall(c *cli.Context) error {
	if err := checkCNIArgs(c); err != nil {
		return err
	}
	report, err := cni.Uninstall(cniLayout(c))
	if err != nil {
		return err
	}
	report.Problems = []string{} // that it is not installed is what was asked for
	for _, f := range append([]cni.File{report.Conf, report.Plugin}, report.DropIns...) {
		if f.State == cni.Foreign {
			fmt.Fprintf(c.App.ErrWriter, "v6node: warning: %s was not written by v6node and is left in place\n", f.Path)
		}
	}
	return printCNI(c, report)
}

func cniShow(c *cli.Context) error {
	if err := checkCNIArgs(c); err != nil {
		return err
	}
	report, err := cni.Inspect(cniLayout(c))
	if err != nil {
		return err
	}
	executable, err := pluginExecutable(c)
	if err != nil {
		return err
	}
	if err := report.Compare(executable); err != nil {
		return err
	}
	if err := printCNI(c, report); err != nil {
		return err
	}
	if !report.Effective {
		return cli.Exit("", exitNotInEffect)
	}
	return nil
}

// checkCNIArgs refuses what would otherwise be ignored.
func checkCNIArgs(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Exit(fmt.Sprintf("cni %s takes no arguments, but got %q", c.Command.Name, c.Args().First()), exitUsage)
	}
	runtime := c.String("runtime")
	switch runtime {
	case runtimeCRIO:
	case runtimeContainerd:
		for _, flag := range []string{"drop-in-dir", "registries-dir"} {
			if c.IsSet(flag) {
				return cli.Exit(fmt.Sprintf("--%s is for CRI-O: add --runtime crio, or leave it out", flag), exitUsage)
			}
		}
	default:
		return cli.Exit(fmt.Sprintf("the runtime %q is not known; use containerd or crio", runtime), exitUsage)
	}
	switch c.String("output") {
	case "table", "json":
		return nil
	}
	return cli.Exit(fmt.Sprintf("the output format %q is not known; use table or json", c.String("output")), exitUsage)
}

func printCNI(c *cli.Context, r cni.Report) error {
	if c.String("output") == "json" {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return printCNITable(c.App.Writer, r)
}

func printCNITable(out io.Writer, r cni.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tSTATE\tVERSION\tSHA256\tPATH")
	type row struct {
		what string
		file cni.File
	}
	rows := []row{{"configuration", r.Conf}, {"plugin", r.Plugin}, {"loopback plugin", r.Loopback}}
	for _, f := range r.DropIns {
		rows = append(rows, row{"drop-in file", f})
	}
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", row.what, row.file.State,
			dash(row.file.Version), dash(row.file.SHA256[:min(12, len(row.file.SHA256))]), row.file.Path)
	}
	for _, o := range r.Others {
		state := "hidden"
		if o.Earlier {
			state = "earlier"
		} else if r.Conf.State == cni.Absent {
			state = "used"
		}
		fmt.Fprintf(w, "other network %s\t%s\t-\t-\t%s\n", dash(o.Network), state, o.Path)
	}
	fmt.Fprintf(w, "\nin effect: %s\n", yesNo(r.Effective))
	for _, p := range r.Problems {
		fmt.Fprintln(w, "problem:", p)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
