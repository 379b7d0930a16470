package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func infoCommand() *cli.Command {
	return stationCommand(asTable, &cli.Command{
		Name:     "info",
		Category: categoryWatch,
		Usage:    "describe the node, its server, runtime and budget",
		Description: `Describes the node, its session with the server, its container runtime and what that
can do, how much of the machine is shared out among runs, and how to look at them with
crictl.

Examples:
   v6node info
   v6node info -o json | jq .session.connected`,
		Action: info,
	})
}

func info(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	i, err := s.Info(c.Context)
	if err != nil {
		return err
	}
	if wantsJSON(c) {
		return printJSON(c.App.Writer, i)
	}
	return printInfo(c, i, time.Now())
}

func printInfo(c *cli.Context, i *admin.Info, now time.Time) error {
	since := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return humanDuration(now.Sub(t))
	}
	d := newDescription(c.App.Writer)
	n := i.Node
	d.section("Node")
	d.entry("name", strings.TrimSpace(n.Name+" "+parenthesis(number(n.ID))))
	d.optional("organization", n.Organization)
	d.optional("collaboration", n.Collaboration)
	d.entry("encrypted", yesNo(n.Encrypted))
	d.entry("version", n.Version)
	d.entry("process", strings.TrimSpace(fmt.Sprintf("%d, up %s, %s of memory", n.PID, since(n.StartedAt), humanSize(n.Memory))))
	d.entry("state directory", n.StateDir)
	d.entry("name at the runtime", n.Instance)
	paused := yesNo(n.Paused)
	if n.Paused {
		paused = strings.TrimSpace("yes, for " + since(n.PausedAt))
	}
	d.entry("paused", paused)
	runs := fmt.Sprintf("%d running, %d preparing, %d delivering, %d waiting", i.Runs.Running, i.Runs.Preparing, i.Runs.Delivering, i.Runs.Queued)
	if i.Runs.Held > 0 {
		runs += fmt.Sprintf(", %d waiting for approval", i.Runs.Held)
	}
	d.entry("runs", runs)
	for _, l := range i.Lacking {
		d.entry("takes no runs", l.Condition+": "+l.Message)
	}

	d.section("Server")
	d.entry("address", i.Session.URL)
	connected := yesNo(i.Session.Connected)
	if s := since(i.Session.Since); s != "" {
		connected += ", for " + s
	}
	d.entry("connected", connected)
	d.optional("last synchronized", ago(i.Session.SyncedAt))
	d.optional("error", i.Session.Error)

	describeRuntimeInfo(d, i.Runtime)

	d.section("Budget")
	t, u := i.Budget.Total, i.Budget.Used
	of := func(used, total string) string {
		if total == "0" || total == "0B" {
			return used + ", no limit"
		}
		return used + " of " + total
	}
	d.entry("memory", of(humanSize(u.Memory), humanSize(t.Memory)))
	d.entry("cpus", of(strconv.FormatFloat(u.CPUs, 'g', -1, 64), strconv.FormatFloat(t.CPUs, 'g', -1, 64)))
	d.entry("pids", of(decimal(u.Pids), decimal(t.Pids)))
	d.entry("runs", of(decimal(u.Runs), decimal(t.Runs)))
	for _, k := range slices.Sorted(maps.Keys(t.Devices)) {
		d.entry(k, fmt.Sprintf("%d of %d", u.Devices[k], t.Devices[k]))
	}
	return d.print()
}

func describeRuntimeInfo(d *description, r admin.RuntimeInfo) {
	d.section("Runtime")
	endpoint := r.Endpoint
	if r.Managed {
		endpoint += " (the node's own)"
	}
	d.entry("endpoint", endpoint)
	d.entry("name", strings.TrimSpace(r.Name+" "+r.Version+", CRI "+r.APIVersion))
	cgroups := fmt.Sprintf("v%d, driver %s", r.CgroupVersion, r.CgroupDriver)
	if !r.TellsDriver {
		cgroups += " (from the runtime's configuration)"
	}
	d.entry("cgroups", cgroups)
	d.entry("apparmor, seccomp", yesNo(r.AppArmor)+", "+yesNo(r.Seccomp))
	d.optional("events", r.Events)
	d.entry("devices by CDI", yesNo(r.CDI))
	if r.MinMemory > 0 {
		d.entry("least memory limit", humanSize(r.MinMemory))
	}
	d.optional("handler", r.Handler)
	for _, h := range r.Handlers {
		name := h.Name
		if name == "" {
			name = "(default)"
		}
		d.entry("handler "+name, "user namespaces "+yesNo(h.UserNamespaces)+", recursive read-only "+yesNo(h.RecursiveReadOnly))
	}
	d.entry("look inside", "crictl -r "+r.Endpoint+" pods --namespace vantage6")
}
