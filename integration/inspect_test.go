//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/admin"
)

// fields are what an inspection is to show, by name, and whether it does.
type fields map[string]bool

func (f fields) check(t *testing.T, in admin.Inspection) {
	t.Helper()
	for name, good := range f {
		if !good {
			t.Errorf("run %d, %s: %s is not what it should be: %+v", in.ID, in.State, name, in)
		}
	}
}

// identified are the fields that say which run it is and who wants it, in all of its states.
func (n *node) identified(in admin.Inspection, task, run int64, ref imagekit.Ref) fields {
	return fields{
		"id": in.ID == run, "task": in.Task == task, "job": in.Job > 0, "parent": in.Parent == 0, "organization": in.Organization == n.org,
		"organization_name": in.OrganizationName != "", "user": in.User > 0, "image": in.Image == ref.Tag, "received_at": !in.ReceivedAt.IsZero(),
		"limits.asked": in.Limits.Asked != nil && in.Limits.Asked.Memory == 256<<20 && in.Limits.Asked.Pids > 0, "limits.enforce": in.Limits.Enforce == "strict",
		"log_path": filepath.IsAbs(in.LogPath), "problems": len(in.Problems) == 0, "approval": in.Approval == nil, "kill_wanted": !in.KillWanted,
	}
}

// absent are the fields of what exists only while a run has its sandbox.
func absent(in admin.Inspection) fields {
	return fields{
		"sandbox": in.Sandbox == nil, "container": in.Container == nil, "limits.effective": in.Limits.Effective == nil,
		"mounts": in.Mounts == nil, "env_names": in.EnvNames == nil,
	}
}

// inspected checks what is shown of a run whose algorithm waits at the gate.
func (n *node) inspected(t *testing.T, g *gate, ref imagekit.Ref) {
	t.Helper()
	in := show[[]admin.Inspection](t, n, "inspect", fmt.Sprint(g.run))[0]
	n.identified(in, g.task, g.run, ref).check(t, in)
	fields{
		"node": in.Node == n.instance(t), "state": in.State == admin.Running, "attempt": in.Attempt == 1, "doing": in.Doing == nil,
		"pinned": in.Pinned == ref.Pinned, "policy": in.Policy != nil && in.Policy.Allowed && in.Policy.Reason != "",
		"times":   in.AdmittedAt.After(in.ReceivedAt) && in.StartedAt.After(in.AdmittedAt) && in.EndedAt.IsZero() && in.FinishedAt.IsZero() && in.DeliveredAt.IsZero(),
		"outcome": in.Outcome == nil, "connections": len(in.Connections) > 0,
		"sandbox": in.Sandbox != nil, "container": in.Container != nil, "limits.effective": in.Limits.Effective != nil, "accounting": in.Accounting != nil,
	}.check(t, in)
	if t.Failed() {
		return
	}
	if _, err := os.Stat(in.LogPath); err != nil {
		t.Error(err)
	}
	sb, c, e, a := in.Sandbox, in.Container, in.Limits.Effective, in.Accounting
	fields{
		"sandbox.id": sb.ID != "", "sandbox.ready": sb.Ready, "sandbox.created_at": !sb.CreatedAt.IsZero(), "sandbox.netns": filepath.IsAbs(sb.NetNS),
		"sandbox.cgroup": sb.Cgroup != "", "sandbox.pid": sb.PID > 1 || n.w.kind == crioKind, // whose sandboxes have no process
		"container.id": c.ID != "", "container.state": c.State == "running", "container.image_id": c.ImageID != "", "container.pid": c.PID > 1 && c.PID != sb.PID,
		"container.times": !c.CreatedAt.IsZero() && !c.StartedAt.Before(c.CreatedAt) && c.FinishedAt.IsZero(),
		"effective":       e.Memory == 256<<20 && e.Pids == in.Limits.Asked.Pids,
		"accounting":      a.CPUSeconds > 0 && a.PeakMemory > 0 && a.RunSeconds > 0 && a.StartSeconds > 0 && a.ImageSeconds > 0,
	}.check(t, in)
	mode := make(map[string]bool)
	for _, m := range in.Mounts {
		mode[m.Destination] = m.ReadOnly
		if !filepath.IsAbs(m.Source) {
			t.Errorf("a mount comes from %q", m.Source)
		}
	}
	own := fmt.Sprintf("/mnt/data/task-%09d", g.run)
	for at, readOnly := range map[string]bool{own: false, "/mnt/tmp": false, "/tmp": false, "/etc/hosts": true} {
		if got, there := mode[at]; !there || got != readOnly {
			t.Errorf("%s is mounted: %t, read-only: %t; of %+v", at, there, got, in.Mounts)
		}
	}
	for _, name := range []string{"INPUT_FILE", "OUTPUT_FILE", "TOKEN_FILE", "HOST", "PORT", "PKG_NAME", "IMAGE_MARK"} {
		if !slices.Contains(in.EnvNames, name) {
			t.Errorf("the variable %s is not among %q", name, in.EnvNames)
		}
	}
	if !slices.IsSorted(in.EnvNames) || slices.ContainsFunc(in.EnvNames, func(s string) bool { return strings.Contains(s, "=") }) {
		t.Errorf("the variables are %q", in.EnvNames)
	}
	table := n.command(t, "inspect", "-o", "table", fmt.Sprint(g.run))
	for _, want := range []string{"allowed:", "Mounts", own + ":", "(ro)", "Environment", "TOKEN_FILE"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table has no %q: %s", want, table)
		}
	}
}

// inspectedInTheQueue checks what is shown of a run that waits for room.
func (n *node) inspectedInTheQueue(t *testing.T, ref imagekit.Ref) {
	t.Helper()
	n.command(t, "pause")
	task, run := n.post(t, "noop", nil, image(ref.Tag))
	n.queued(t, 1)
	in := show[[]admin.Inspection](t, n, "inspect", fmt.Sprint(run))[0]
	n.identified(in, task, run, ref).check(t, in)
	absent(in).check(t, in)
	fields{
		"state": in.State == admin.Queued, "attempt": in.Attempt == 0, "pinned": in.Pinned == "", "policy": in.Policy == nil, "outcome": in.Outcome == nil,
		"accounting": in.Accounting == nil, "admitted_at": in.AdmittedAt.IsZero(), "connections": len(in.Connections) == 0,
	}.check(t, in)
	n.kill(t, task)
	eventually(t, func() error {
		if in := show[[]admin.Inspection](t, n, "inspect", fmt.Sprint(run))[0]; in.State != admin.Done || in.Outcome.Reason != "killed" || in.Outcome.Started {
			return fmt.Errorf("inspect shows %+v", in)
		}
		return nil
	})
	n.command(t, "resume")
}

// inspectedAtTheEnd checks what is shown of a run of which nothing is left but its record and its log.
func (n *node) inspectedAtTheEnd(t *testing.T, g *gate, ref imagekit.Ref) {
	t.Helper()
	var in admin.Inspection
	eventually(t, func() error {
		if in = show[[]admin.Inspection](t, n, "inspect", fmt.Sprint(g.run))[0]; in.State != admin.Done || in.DeliveredAt.IsZero() {
			return fmt.Errorf("inspect shows %+v", in)
		}
		return nil
	})
	wanted := n.identified(in, g.task, g.run, ref)
	// The administrator has changed the limit meanwhile.
	wanted["limits.asked"] = in.Limits.Asked != nil && in.Limits.Asked.Memory == 128<<20 && in.Limits.Asked.Pids == 99
	wanted.check(t, in)
	absent(in).check(t, in)
	fields{
		"attempt": in.Attempt == 1, "pinned": in.Pinned == ref.Pinned, "policy": in.Policy != nil && in.Policy.Allowed && in.Policy.Reason != "",
		"times":       in.StartedAt.After(in.AdmittedAt) && in.EndedAt.After(in.StartedAt) && !in.FinishedAt.Before(in.EndedAt) && in.DeliveredAt.After(in.FinishedAt),
		"outcome":     in.Outcome != nil && in.Outcome.Reason == "completed" && in.Outcome.Status == "completed" && in.Outcome.ExitCode == 0 && in.Outcome.Started,
		"accounting":  in.Accounting != nil && in.Accounting.CPUSeconds > 0 && in.Accounting.RunSeconds > 0 && in.Accounting.DeliverySeconds > 0,
		"connections": len(in.Connections) > 0,
	}.check(t, in)
	if _, err := os.Stat(in.LogPath); err != nil {
		t.Error(err)
	}
}
