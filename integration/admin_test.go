//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/admin"
)

// adminScenarios are what an administrator sees and does on the command line.
func adminScenarios() []scenario {
	return []scenario{
		{"an administrator sees a run and changes its limits", seenAndChanged},
		{"an administrator shortens the time of a run", shortened},
		{"an administrator kills a run", killedByHand},
		{"a paused node begins nothing", pausedByHand},
	}
}

// command runs a command of the administrator on the node.
func (n *node) command(t *testing.T, args ...string) string {
	t.Helper()
	out, errOut, err := n.w.v6node(t, append(args[:1:1], append([]string{"--state-dir", n.StateDir}, args[1:]...)...)...)
	if err != nil {
		t.Fatalf("v6node %s: %v: %s", strings.Join(args, " "), err, errOut)
	}
	return out
}

// show runs a command of the administrator and decodes what it prints.
func show[T any](t *testing.T, n *node, args ...string) T {
	t.Helper()
	out := n.command(t, append(args, "-o", "json")...)
	var v T
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("v6node %s printed %q: %v", strings.Join(args, " "), out, err)
	}
	return v
}

func seenAndChanged(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"limits": map[string]any{"memory": "256m"}}})
	// An image that no other node uses, which would keep it.
	ref := w.pack(t, w.registry(t, imagekit.RegistryOptions{}), "admin/algorithm", strconv.Itoa(w.number()))
	g := n.hold(t, image(ref.Tag))
	id := strconv.FormatInt(g.run, 10)
	if runs := show[[]admin.Run](t, n, "ps"); len(runs) != 1 || runs[0].ID != g.run || runs[0].State != admin.Running {
		t.Errorf("ps shows %+v", runs)
	}
	n.inspected(t, g, ref)
	stats := show[[]admin.Stats](t, n, "stats", "--no-stream", id)
	if len(stats) != 1 || stats[0].Memory == 0 || stats[0].MemoryLimit != 256<<20 || stats[0].Pids == 0 || stats[0].CPUNanos == 0 {
		t.Errorf("stats shows %+v", stats)
	}
	// The algorithm and the sandbox's own process.
	if top := show[[]admin.Process](t, n, "top", id); len(top) != 2 {
		t.Errorf("top shows %+v", top)
	}
	n.command(t, "update", "--memory", "128m", "--pids-limit", "99", id)
	if got, err := n.runtime(t).Cgroup(n.instance(t), "run"+id).ReadBack(); err != nil || got.MemoryLimit != 128<<20 || got.PidsLimit != 99 {
		t.Errorf("the kernel's limits are %+v (%v)", got, err)
	}
	if u := show[[]admin.Stats](t, n, "stats", "--no-stream", id); u[0].MemoryLimit != 128<<20 || u[0].PidsLimit != 99 {
		t.Errorf("after the update stats shows %+v", u)
	}
	if out := n.command(t, "logs", id); !strings.Contains(out, "waiting at the gate") {
		t.Errorf("logs shows %q", out)
	}
	n.inspectedInTheQueue(t, ref)
	g.release(t)
	if e := n.finish(t, g.task); e.Status != standin.StatusCompleted {
		t.Errorf("status %s: %s", e.Status, e.Text)
	}
	n.onceDelivered(t, g.run)
	n.inspectedAtTheEnd(t, g, ref)
	eventually(t, func() error {
		if all := show[[]admin.Run](t, n, "ps", "-a", "--filter", "id="+id); len(all) != 1 || all[0].State != admin.Done || all[0].Outcome.Status != standin.StatusCompleted {
			return fmt.Errorf("ps -a shows %+v", all)
		}
		return nil
	})
	eventually(t, func() error { // when the run's removal is written down
		if r := show[admin.GCReport](t, n, "gc", "--all", "--dry-run"); len(r.Items) == 0 || r.Items[0].Kind != "image" || r.Freed == 0 {
			return fmt.Errorf("gc --dry-run shows %+v", r)
		}
		return nil
	})
	if r := show[admin.GCReport](t, n, "gc", "--all"); r.Freed == 0 {
		t.Errorf("gc shows %+v", r)
	}
	// What was collected comes back when it is needed.
	if e := n.call(t, "noop", nil, image(ref.Tag)); e.Status != standin.StatusCompleted {
		t.Errorf("after gc: status %s: %s", e.Status, e.Text)
	}
}

func shortened(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"limits": map[string]any{"timeout": "1h"}, "stop_grace": "200ms"}})
	task, run := n.post(t, "ignore_term", kwargs{"seconds": 3600})
	n.active(t, run)
	n.command(t, "update", "--timeout", "1s", strconv.FormatInt(run, 10))
	n.failed(t, n.finish(t, task), standin.StatusCrashed, "it had not ended after 1s (limits.timeout)")
}

func killedByHand(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	g := n.hold(t)
	n.command(t, "kill", "latest")
	e := n.finish(t, g.task)
	if e.Status != standin.StatusKilled || !strings.Contains(e.Text, "administrator of this node") {
		t.Errorf("status %s, log %q", e.Status, e.Text)
	}
	n.noTraces(t, g.run)
}

func pausedByHand(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	n.command(t, "pause")
	task, run := n.post(t, "noop", nil)
	eventually(t, func() error {
		if q := show[[]admin.Waiting](t, n, "queue"); len(q) != 1 || q[0].Run != run {
			return fmt.Errorf("queue shows %+v", q)
		}
		return nil
	})
	if info := show[admin.Info](t, n, "info"); !info.Node.Paused || info.Runs.Queued != 1 {
		t.Errorf("info shows %+v", info)
	}
	n.command(t, "resume")
	if e := n.finish(t, task); e.Status != standin.StatusCompleted {
		t.Errorf("status %s: %s", e.Status, e.Text)
	}
}
