//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/pidfd"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/runtime"
)

// runtimeFaults are what somebody else, or the kernel, does to the runtime's part
// of a run while its algorithm runs.
func runtimeFaults() []scenario {
	return []scenario{
		{"the monitor of a container is killed", monitorKilled},
		{"a container is removed by hand", func(t *testing.T, w *world) {
			// Its algorithm is killed before, and may be seen dead.
			takenAway(t, w, "", func(n *node, run int64, c *runtime.Container) error {
				_, err := w.crictl(t, n.endpoint(t), "rm", "-f", c.ID)
				return err
			})
		}},
		{"a sandbox is stopped by hand", func(t *testing.T, w *world) {
			takenAway(t, w, "not by this node", func(n *node, run int64, c *runtime.Container) error {
				_, err := w.crictl(t, n.endpoint(t), "stopp", c.SandboxID)
				return err
			})
		}},
		{"a sandbox is removed by hand", func(t *testing.T, w *world) {
			takenAway(t, w, "", func(n *node, run int64, c *runtime.Container) error {
				_, err := w.crictl(t, n.endpoint(t), "rmp", "-f", c.SandboxID)
				if err != nil { // the node may be at the rest of it at the same time
					eventually(t, func() error {
						if len(n.sandboxes(t, run)) > 0 {
							return err
						}
						return nil
					})
				}
				return nil
			})
		}},
		{"the control groups of a run are emptied and removed", func(t *testing.T, w *world) {
			takenAway(t, w, "not by this node", func(n *node, run int64, _ *runtime.Container) error {
				eventually(t, func() error { return n.emptyGroups(t, run) })
				return nil
			})
		}},
		{"an image is removed while a run waits for its turn", imageRemoved},
	}
}

// container is the run's, which the runtime must have.
func (n *node) container(t *testing.T, run int64) *runtime.Container {
	t.Helper()
	list, err := n.runtime(t).ListContainers(within(t), map[string]string{
		"ai.vantage6.node": n.instance(t), "ai.vantage6.run": strconv.FormatInt(run, 10),
	})
	if err != nil || len(list) != 1 {
		t.Fatalf("run %d has %d containers: %v", run, len(list), err)
	}
	return list[0]
}

// takenAway holds an algorithm, does something to its container, and checks that
// the run ends as crashed for a reason that is true, after one execution.
func takenAway(t *testing.T, w *world, says string, do func(n *node, run int64, c *runtime.Container) error) {
	alpha := w.alpha(t)
	g := alpha.hold(t)
	marks := filepath.Join(g.scratch(t), "executed")
	eventually(t, func() error { // the mark is made, and then written
		b, err := os.ReadFile(marks)
		if err != nil || strings.Count(string(b), "\n") != 1 {
			err = fmt.Errorf("the algorithm was executed like this: %q, %w", b, err)
		}
		return err
	})
	if err := do(alpha, g.run, alpha.container(t, g.run)); err != nil {
		t.Fatal(err)
	}
	alpha.failed(t, alpha.finish(t, g.task), standin.StatusCrashed, says)
	if err := alpha.startedOnce(g.run); err != nil {
		t.Error(err)
	}
}

func monitorKilled(t *testing.T, w *world) {
	takenAway(t, w, "its monitor was killed", func(n *node, run int64, c *runtime.Container) error {
		st, err := n.runtime(t).ContainerStatus(within(t), c.ID)
		if err != nil {
			return err
		}
		monitor, err := parentOf(st.PID)
		if err != nil {
			return err
		}
		if line := commandLine(monitor); !strings.Contains(line, "containerd-shim") {
			return fmt.Errorf("the parent of the algorithm's process is %q", line)
		}
		return killAndWait(monitor)
	})
}

// parentOf is the parent of a process.
func parentOf(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything.
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	return strconv.Atoi(f[1])
}

// killAndWait ends a process and returns when it is gone.
func killAndWait(pid int) error {
	p, err := pidfd.Open(pid)
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // nothing is written to it
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		return fmt.Errorf("process %d does not end: %w", pid, err)
	}
	return nil
}

// emptyGroups kills everything in a run's control groups and removes these. It
// is to be repeated: groups are in use until their processes are gone.
func (n *node) emptyGroups(t *testing.T, run int64) error {
	t.Helper()
	var left error
	for _, pattern := range n.groups(t, run, "*") {
		tops, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, top := range tops {
			groups, err := filepath.Glob(filepath.Join(top, "*"))
			if err != nil {
				return err
			}
			for _, g := range append(groups, top) {
				if info, err := os.Stat(g); err != nil || !info.IsDir() {
					continue
				}
				b, err := os.ReadFile(filepath.Join(g, "cgroup.procs"))
				if err != nil {
					continue // gone
				}
				for _, p := range strings.Fields(string(b)) {
					if pid, err := strconv.Atoi(p); err == nil {
						_ = unix.Kill(pid, unix.SIGKILL) // it may be gone
					}
				}
				if err := unix.Rmdir(g); err != nil && !errors.Is(err, unix.ENOENT) {
					left = errors.Join(left, fmt.Errorf("remove %s: %w", g, err))
				}
			}
		}
	}
	return left
}

func imageRemoved(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"resources": w.resources(map[string]any{"runs": 2, "memory": "1t", "pids": 1_000_000})}})
	ref := w.pack(t, w.lab.Registry, "removed/algorithm", "removed")
	completed[any](t, n.call(t, "noop", nil, image(ref.Tag)))
	g := n.hold(t)
	task, run := n.post(t, "count", nil, image(ref.Tag))
	n.queued(t, 1) // one of the two slots is kept for subtasks
	n.removeImage(t, ref.Pinned)
	g.undisturbed(t)
	if got := completed[struct{ Count int }](t, n.well(t, task)); got.Count != 1 {
		t.Errorf("the algorithm was executed %d times", got.Count)
	}
	n.noTraces(t, run)
}

// removeImage takes an image away that the runtime must have.
func (n *node) removeImage(t *testing.T, ref string) {
	t.Helper()
	if _, err := n.w.crictl(t, n.endpoint(t), "rmi", ref); err != nil {
		t.Fatal(err)
	}
	if _, err := n.runtime(t).Image(within(t), ref); !errors.Is(err, runtime.ErrImageNotFound) {
		t.Fatalf("the image is still there: %v", err)
	}
}

func TestARuntimeThatHangsOnEmbeddedContainerd(t *testing.T) { runtimeHangs(t, embeddedKind) }

func TestARuntimeThatHangsOnExternalContainerd(t *testing.T) { runtimeHangs(t, externalKind) }

// runtimeHangs stops the runtime's process for a while. Meanwhile an algorithm
// ends, another one is killed and a third one is to start.
func runtimeHangs(t *testing.T, k kind) {
	w := newWorld(t, k)
	n := w.start(t, nodeOptions{})
	ending, unwanted := n.hold(t), n.hold(t)
	open := filepath.Join(ending.scratch(t), "open")
	pid := n.runtimePID(t)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() { _ = unix.Kill(pid, unix.SIGCONT) } // it lives
	defer goOn()

	task, run := n.post(t, "count", nil)
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.kill(t, unwanted.task)
	eventually(t, func() error { return n.lacks(t, "runtime", "does not answer") })
	runs, err := n.Runs()
	if err != nil || len(runs) != 3 {
		t.Errorf("the node shows %d runs: %v", len(runs), err)
	}
	if _, stderr, err := w.v6node(t, "events", "--state-dir", n.StateDir); err != nil {
		t.Errorf("v6node events: %v: %s", err, stderr)
	}
	goOn()

	n.takenOver(t, ending, true)
	n.killed(t, unwanted.run, true)
	if got := completed[struct{ Count int }](t, n.well(t, task)); got.Count != 1 {
		t.Errorf("the run that came meanwhile was executed %d times", got.Count)
	}
	n.noTraces(t, run)
	eventually(t, func() error {
		if i := show[admin.Info](t, n, "info"); len(i.Lacking) > 0 {
			return fmt.Errorf("the node still lacks %+v", i.Lacking)
		}
		return nil
	})
	for _, id := range []int64{ending.run, unwanted.run, run} {
		if err := n.startedOnce(id); err != nil {
			t.Error(err)
		}
	}
}

// lacks asks whether the node says, to its administrator, what it lacks.
func (n *node) lacks(t *testing.T, condition string, says ...string) error {
	t.Helper()
	i := show[admin.Info](t, n, "info")
	for _, l := range i.Lacking {
		if l.Condition != condition {
			continue
		}
		oneSentence(t, l.Message, says...)
		return nil
	}
	return fmt.Errorf("the node lacks %+v, and not %s", i.Lacking, condition)
}
