//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/pidfd"
)

// traces are the names by which everything that a world made can be recognised
// on the machine.
type traces struct {
	dirs      []string // the world's own, and where a node keeps sockets for which that is too long
	instances []string // names of control groups
}

func readInstance(stateDir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(stateDir, "instance"))
	return strings.TrimSpace(string(b)), err
}

// runDir is where containerd has its sockets, and one for its transient data.
var runDir = regexp.MustCompile(`"(/run/v6node-[0-9a-f]+(?:-containerd)?)["/]`)

// traces are read before the world is taken down.
func (w *world) traces() *traces {
	tr := &traces{dirs: []string{w.dir}}
	for _, n := range w.all() {
		if name, err := readInstance(n.StateDir); err == nil { // else it never got so far
			tr.instances = append(tr.instances, name)
		}
		if config, err := os.ReadFile(filepath.Join(n.StateDir, "containerd-state", "config.toml")); err == nil {
			for _, m := range runDir.FindAllSubmatch(config, -1) {
				if dir := string(m[1]); !slices.Contains(tr.dirs, dir) {
					tr.dirs = append(tr.dirs, dir)
				}
			}
		}
	}
	return tr
}

// check reports whatever is still there of a world that has ended.
func (tr *traces) check(t *testing.T, w *world) {
	t.Helper()
	// A shim ends a moment after its sandbox, and containerd does not wait for it.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second*time.Duration(slowness()))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(tr.processes(t))+len(tr.sockets(t)) > 0 && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	for _, pid := range tr.processes(t) {
		t.Errorf("a process is left: %d %s", pid, commandLine(pid))
	}
	for _, m := range tr.mounts(t) {
		t.Errorf("a mount is left, of a file system or a network namespace: %s", m)
	}
	if groups := tr.cgroups(t); len(groups) > 0 {
		t.Errorf("control groups are left: %s", strings.Join(groups, " "))
	}
	for _, s := range tr.sockets(t) {
		t.Errorf("a socket is left: %s", s)
	}
	for _, d := range tr.dirs[1:] {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("the directory %s is left", d)
		}
	}
	patterns := []string{filepath.Join(w.tmp(), "*")}
	for _, n := range w.all() {
		patterns = append(patterns, filepath.Join(n.files(), "runs", "*"), filepath.Join(n.files(), "jobs", "*"))
	}
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			t.Error(err)
		}
		for _, f := range found {
			t.Errorf("a file is left: %s", f)
		}
	}
}

// mine tells whether a text names something of the world.
func (tr *traces) mine(text string) bool {
	return slices.ContainsFunc(tr.dirs, func(d string) bool { return strings.Contains(text, d) })
}

// processes are those that were started with one of our paths, or that are in
// one of our control groups. A process that has ended and only waits to be
// collected by whoever adopted it has neither.
func (tr *traces) processes(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || commandLine(pid) == "" {
			continue
		}
		groups, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		if err != nil {
			continue // ended just now
		}
		inGroup := slices.ContainsFunc(tr.instances, func(i string) bool {
			return bytes.Contains(groups, []byte("/"+i)) || bytes.Contains(groups, []byte("-"+i))
		})
		if inGroup || tr.mine(commandLine(pid)) {
			found = append(found, pid)
		}
	}
	return found
}

func commandLine(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

func (tr *traces) mounts(t *testing.T) []string {
	t.Helper()
	return tr.lines(t, "/proc/self/mountinfo", 4)
}

func (tr *traces) sockets(t *testing.T) []string {
	t.Helper()
	return tr.lines(t, "/proc/net/unix", 7)
}

// lines returns the given column of the lines of a file that name something of
// the world.
func (tr *traces) lines(t *testing.T, file string, column int) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > column && tr.mine(line) {
			found = append(found, f[column])
		}
	}
	return found
}

// cgroups are the control groups of the world's nodes, the deepest first.
func (tr *traces) cgroups(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, i := range tr.instances {
		for _, pattern := range []string{"/sys/fs/cgroup/v6node*/*" + i + "*", "/sys/fs/cgroup/*/v6node*/*" + i + "*", "/sys/fs/cgroup/*/v6it-*/v6node/" + i} {
			tops, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, top := range tops {
				err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
					if err == nil && e.IsDir() {
						found = append(found, path)
					}
					return nil // groups vanish while one looks
				})
				if err != nil {
					t.Error(err)
				}
			}
		}
	}
	slices.Reverse(found)
	return found
}

// sweep removes by force what check has reported, so that a failed test leaves
// nothing to the machine either.
func (tr *traces) sweep(t *testing.T) {
	t.Helper()
	for _, pid := range tr.processes(t) {
		p, err := pidfd.Open(pid)
		if err != nil {
			continue // gone
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_ = errors.Join(p.Signal(unix.SIGKILL), p.Wait(ctx), p.Close()) // what is left then is seen below
		cancel()
	}
	mounts := tr.mounts(t)
	slices.Reverse(mounts)
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("unmount %s: %v", m, err)
		}
	}
	for _, g := range tr.cgroups(t) {
		if err := os.Remove(g); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	for _, d := range tr.dirs[1:] {
		if err := os.RemoveAll(d); err != nil {
			t.Error(err)
		}
	}
}
