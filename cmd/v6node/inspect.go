package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/admin"
)

func inspectCommand() *cli.Command {
	return stationCommand(asJSON, &cli.Command{
		Name:      "inspect",
		Category:  categoryWatch,
		Usage:     "show everything that is known of runs",
		ArgsUsage: "RUN...",
		Description: `Shows the ledger's record, the policies' decision, the limits asked for and what was
used: of living runs and of those that are over. Of living ones also sandbox, container,
mounts and the limits that the kernel has. Secrets are not shown; of the environment
only the names are.

Examples:
   v6node inspect 101
   v6node inspect -o table latest
   v6node inspect 101 | jq '.[0].limits.effective'`,
		Action: inspect,
	})
}

func inspect(c *cli.Context) error {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	s, err := station(c)
	if err != nil {
		return err
	}
	found := []*admin.Inspection{}
	failed := eachRun(c, s, func(run int64) error {
		i, err := s.Inspect(c.Context, run)
		if err == nil {
			found = append(found, i)
		}
		return err
	})
	if wantsJSON(c) {
		err = printJSON(c.App.Writer, found)
	} else {
		err = printInspections(c, found)
	}
	if failed != nil {
		return failed
	}
	return err
}

func printInspections(c *cli.Context, list []*admin.Inspection) error {
	for i, in := range list {
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		if err := printInspection(c, in); err != nil {
			return err
		}
	}
	return nil
}

func printInspection(c *cli.Context, in *admin.Inspection) error {
	d := newDescription(c.App.Writer)
	d.section("Run " + decimal(in.ID))
	d.entry("status", status(&in.Run, time.Now()))
	d.entry("task, job, parent", strings.Join([]string{decimal(in.Task), dash(number(in.Job)), dash(number(in.Parent))}, ", "))
	d.entry("organization", organization(in.OrganizationName, in.Organization))
	d.optional("user", number(in.User))
	d.entry("image", in.Image)
	if a := in.Approval; a != nil {
		d.entry("approval", strings.TrimSpace(dash(a.Answer)+"  "+a.Words))
		d.optional("approval by", a.By)
		d.entry("approval because", a.Reason)
		d.entry("approval of", strings.TrimSpace(a.Pinned+"  "+a.Function+"  "+strings.Join(a.Databases, " ")))
	}
	d.optional("pinned", in.Pinned)
	d.optional("SIF file", in.File)
	d.optional("attempt", number(int64(in.Attempt)))
	d.optional("received", stamp(in.ReceivedAt))
	d.optional("admitted", stamp(in.AdmittedAt))
	d.optional("started", stamp(in.StartedAt))
	d.optional("ended", stamp(in.EndedAt))
	d.optional("finished", stamp(in.FinishedAt))
	d.optional("delivered", stamp(in.DeliveredAt))
	d.optional("log", in.LogPath)
	if p := in.Policy; p != nil {
		d.entry("allowed", strings.TrimSpace(yesNo(p.Allowed)+"  "+p.Reason))
	}
	if o := in.Outcome; o != nil {
		d.section("Outcome")
		d.entry("reason", o.Reason)
		d.entry("status at the server", dash(o.Status))
		if o.Started {
			d.entry("exit code", strconv.Itoa(o.ExitCode))
		}
		d.optional("message", o.Message)
	}
	describeRuntime(d, in)
	describeLimits(d, in.Limits)
	if a := in.Accounting; a != nil {
		describeAccounting(d, a)
	}
	if len(in.Connections) > 0 {
		d.section("Connections")
		for _, k := range in.Connections {
			d.entry(k.At, connectionText(k))
		}
	}
	if len(in.Mounts) > 0 {
		d.section("Mounts")
		for _, m := range in.Mounts {
			mode := "rw"
			if m.ReadOnly {
				mode = "ro"
			}
			d.entry(m.Destination, m.Source+" ("+mode+")")
		}
	}
	if len(in.EnvNames) > 0 {
		d.section("Environment")
		d.entry("names", strings.Join(in.EnvNames, " "))
	}
	if len(in.Problems) > 0 {
		d.section("Problems")
		for _, p := range in.Problems {
			d.entry("", p)
		}
	}
	return d.print()
}

// connectionText is what a connection leads to and has carried.
func connectionText(k admin.Connection) string {
	to := strings.TrimPrefix(k.Kind+" "+k.Target, "tcp ")
	least := ""
	if k.AtLeast {
		least = "at least "
	}
	return fmt.Sprintf("to %s: %s%d made, %d open, %d failed, %s sent, %s received", strings.TrimSpace(to), least, k.Connections, k.Open, k.Failed, humanSize(k.Sent), humanSize(k.Received))
}

func describeRuntime(d *description, in *admin.Inspection) {
	if s := in.Sandbox; s != nil {
		d.section("Sandbox")
		d.entry("id", s.ID)
		d.entry("ready", yesNo(s.Ready))
		d.optional("handler", s.Handler)
		d.optional("pid", number(int64(s.PID)))
		d.optional("network namespace", s.NetNS)
		d.optional("cgroup", s.Cgroup)
		d.optional("user ids", s.UserNS)
	}
	if k := in.Container; k != nil {
		d.section("Container")
		d.entry("id", k.ID)
		d.entry("state", strings.TrimSpace(k.State+" "+k.Reason))
		d.optional("image id", k.ImageID)
		d.optional("pid", number(int64(k.PID)))
		d.optional("message", k.Message)
	}
}

func describeLimits(d *description, l admin.LimitsState) {
	var asked []limitRow
	if l.Asked != nil {
		asked = limitRows(*l.Asked)
	}
	effective := map[string]string{}
	if l.Effective != nil {
		for _, r := range limitRows(*l.Effective) {
			effective[r.name] = r.value
		}
	}
	if len(asked) == 0 && len(effective) == 0 {
		return
	}
	d.section(strings.TrimSpace("Limits " + parenthesis(l.Enforce)))
	for _, r := range asked {
		text := r.value
		if e, ok := effective[r.name]; ok && e != r.value {
			text += " asked, " + e + " in effect"
		}
		delete(effective, r.name)
		d.entry(r.name, text)
	}
	if l.Effective != nil {
		for _, r := range limitRows(*l.Effective) {
			if e, ok := effective[r.name]; ok {
				d.entry(r.name, e+" in effect, not asked for")
			}
		}
	}
}

func parenthesis(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

func describeAccounting(d *description, a *admin.Accounting) {
	d.section("Used")
	d.entry("cpu time", fmt.Sprintf("%s (user %s, system %s)", cpuTime(seconds(a.CPUSeconds)), cpuTime(seconds(a.CPUUserSeconds)), cpuTime(seconds(a.CPUSystemSeconds))))
	d.entry("throttled", fmt.Sprintf("%s in %d periods", cpuTime(seconds(a.ThrottledSeconds)), a.ThrottledPeriods))
	d.entry("peak memory", humanSize(a.PeakMemory))
	d.entry("read / written", humanSize(a.ReadBytes)+" / "+humanSize(a.WrittenBytes))
	d.entry("oom kills", decimal(a.OOMKills))
	d.entry("queue, image, start", fmt.Sprintf("%s, %s, %s", cpuTime(seconds(a.QueueSeconds)), cpuTime(seconds(a.ImageSeconds)), cpuTime(seconds(a.StartSeconds))))
	d.entry("run, delivery", fmt.Sprintf("%s, %s", cpuTime(seconds(a.RunSeconds)), cpuTime(seconds(a.DeliverySeconds))))
}

// limitRow is one limit with the name of the flag that sets it.
type limitRow struct{ name, value string }

// limitRows lists the limits that are set.
func limitRows(l admin.Limits) []limitRow {
	var rows []limitRow
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, limitRow{name, value})
		}
	}
	add("memory", size(l.Memory))
	if l.MemorySwap == -1 {
		add("memory-swap", "unlimited")
	} else {
		add("memory-swap", size(l.MemorySwap))
	}
	add("memory-reservation", size(l.MemoryReservation))
	if l.CPUs > 0 {
		add("cpus", strconv.FormatFloat(l.CPUs, 'g', -1, 64))
	}
	add("cpu-shares", number(l.CPUShares))
	add("cpuset-cpus", l.CpusetCPUs)
	add("cpuset-mems", l.CpusetMems)
	add("pids-limit", number(l.Pids))
	add("shm-size", size(l.ShmSize))
	add("tmpfs-size", size(l.TmpfsSize))
	add("input-size", size(l.InputSize))
	add("output-size", size(l.OutputSize))
	add("scratch-size", size(l.ScratchSize))
	add("log-size", size(l.LogSize))
	for _, u := range l.Ulimits {
		add("ulimit "+u.Name, fmt.Sprintf("%d:%d", u.Soft, u.Hard))
	}
	add("device", strings.Join(l.Devices, " "))
	if l.OOMScoreAdj != nil {
		add("oom-score-adj", decimal(*l.OOMScoreAdj))
	}
	if l.TimeoutSeconds > 0 {
		add("timeout", seconds(l.TimeoutSeconds).String())
	}
	return rows
}

// size is a limit's size, "" for none.
func size(n int64) string {
	if n == 0 {
		return ""
	}
	return humanSize(n)
}

// number is "" for 0.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return decimal(n)
}
