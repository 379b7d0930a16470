//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

// normalUser is a user of this machine, with subordinate ids and control groups
// that root has delegated.
type normalUser struct {
	name     string
	uid, gid int
	// cgroup is the delegated group, "" where the user's systemd makes one for
	// each node.
	cgroup string
}

// newUser makes one for the time of the test. Where the variable V6NODE_TEST_USER
// names one that exists, that is taken: it has a systemd of its own.
func newUser(t *testing.T) *normalUser {
	t.Helper()
	u := &normalUser{name: os.Getenv("V6NODE_TEST_USER")}
	there := u.name != ""
	if !there {
		u.name = fmt.Sprintf("v6it-%d", os.Getpid())
		u.command(t, "useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", u.name)
		t.Cleanup(func() { u.command(t, "userdel", u.name) })
	}
	entry, err := user.Lookup(u.name)
	if err != nil {
		t.Fatal(err)
	}
	if u.uid, err = strconv.Atoi(entry.Uid); err != nil {
		t.Fatal(err)
	}
	if u.gid, err = strconv.Atoi(entry.Gid); err != nil {
		t.Fatal(err)
	}
	if !there {
		u.delegate(t)
	}
	return u
}

// withoutSubordinates takes the user's subordinate ids away for the time of the
// test. usermod does not, where the user has a session.
func (u *normalUser) withoutSubordinates(t *testing.T) {
	t.Helper()
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		var theirs string
		change := func(f func(line string) (keep bool), more string) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for line := range strings.Lines(string(b)) {
				if f(line) {
					text.WriteString(line)
				}
			}
			if err := os.WriteFile(file, []byte(text.String()+more), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		change(func(line string) bool {
			mine := strings.HasPrefix(line, u.name+":")
			if mine {
				theirs += line
			}
			return !mine
		}, "")
		t.Cleanup(func() { change(func(string) bool { return true }, theirs) })
	}
}

// runtimeDir is the user's XDG_RUNTIME_DIR, or dir where no session has made one.
func (u *normalUser) runtimeDir(dir string) string {
	if u.cgroup != "" {
		return dir
	}
	return fmt.Sprintf("/run/user/%d", u.uid)
}

func (u *normalUser) command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%q: %v: %s", args, err, out)
	}
}

// credential has a group that the user's namespace does not know.
func (u *normalUser) credential() *syscall.Credential {
	return &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid), Groups: []uint32{strangerID}}
}

// own gives a directory with all that is in it to the user.
func (u *normalUser) own(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, u.uid, u.gid))
	})
}

// delegate does what the manual tells the administrator of a machine with
// cgroup v1.
func (u *normalUser) delegate(t *testing.T) {
	t.Helper()
	u.cgroup = "/" + u.name
	tops, err := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range tops {
		top = filepath.Dir(top)
		dir := filepath.Join(top, u.name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("the user's control group is not empty: %v", err)
			}
		})
		for _, f := range []string{"", "tasks", "cgroup.procs"} {
			if err := os.Chown(filepath.Join(dir, f), u.uid, u.gid); err != nil {
				t.Fatal(err)
			}
		}
		if filepath.Base(top) != "cpuset" {
			continue
		}
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(top, f))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, f), b, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// reachable copies the programs to where the user can execute them.
func (w *world) reachable(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.Chmod(w.dir, 0o755), os.Chown(w.dir, w.user.uid, w.user.gid)); err != nil {
		t.Fatal(err)
	}
	copyTo := func(dir string, from ...string) string {
		dir = filepath.Join(w.dir, dir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range from {
			b, err := os.ReadFile(f)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	bundle := w.programs.Bundle
	w.bin = copyTo("bin", filepath.Join(w.bin, "v6node"), filepath.Join(w.bin, "v6node-cni"))
	w.programs.V6node = filepath.Join(w.bin, "v6node")
	w.programs.Bundle = copyTo("bundle", filepath.Join(bundle, "containerd"), filepath.Join(bundle, "containerd-shim-runc-v2"),
		filepath.Join(bundle, "runc"), filepath.Join(bundle, "v6node-pause"), filepath.Join(bundle, "rootlesskit"), filepath.Join(bundle, "v6node-runc"), filepath.Join(bundle, "crictl"))
	copyTo("bundle/algorithms", filepath.Join(bundle, "algorithms", "average"), filepath.Join(bundle, "algorithms", "testalgo"))
}

func TestOnRootlessContainerd(t *testing.T) {
	onRuntime(t, rootlessKind, append(suite(), rootlessScenarios()...))
}

// A user without subordinate ids is alone in the namespace.
func TestOnRootlessContainerdWithOneUserID(t *testing.T) {
	onRuntime(t, oneIDKind, append(suite(),
		scenario{"a node that is killed finds its namespace again", sameNamespace},
		scenario{"a node that leaves nothing running leaves no namespace", noNamespace},
		scenario{"without a delegated control group a run without limits is possible where that is wanted", bestEffort},
		scenario{"an image that has files of several users, and another user to run as, runs as the node's own", severalUsers},
	))
}

func rootlessScenarios() []scenario {
	return []scenario{
		{"without a delegated control group the node does not start, and says what to do", undelegated},
		{"without a delegated control group a run without limits is possible where that is wanted", bestEffort},
		{"a node that is killed finds its namespace again", sameNamespace},
		{"a node that leaves nothing running leaves no namespace", noNamespace},
		{"a rootless containerd that somebody else started is joined", joined},
		{"databases can be read as the user can read them", userDatabases},
		{"without --config a node takes the only configuration of its user", usersConfiguration},
	}
}

func undelegated(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{Extra: map[string]any{"resources": map[string]any{"enforce": "strict"}}})
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	code, err := n.Wait(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if log := n.Log(5); code != 6 || !strings.Contains(log, "the limits of runs cannot be enforced without root") ||
		!strings.Contains(log, "resources.cgroup") || !strings.Contains(log, "best-effort") || strings.Count(log, "\n") > 0 {
		t.Errorf("exit code %d:\n%s", code, log)
	}
}

func bestEffort(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"resources": map[string]any{"enforce": "best-effort"}}})
	completed[any](t, n.call(t, "noop", nil))
	if log := n.Log(1 << 20); !strings.Contains(log, "runs have no limits of memory, CPU and processes") {
		t.Errorf("the log does not say that there are no limits:\n%s", log)
	}
}

// usersConfiguration: where the node begins anew it is root of a user namespace,
// and must not look where the machine's root has its configurations.
func usersConfiguration(t *testing.T, w *world) {
	script := filepath.Join(w.bin, "unnamed")
	text := fmt.Sprintf("#!/bin/sh\nshift 3\nmkdir -p \"$HOME/.config/v6node\"\nmv \"$HOME/node.yaml\" \"$HOME/.config/v6node/\"\nunset XDG_CONFIG_HOME\nexec %s run \"$@\"\n", w.programs.V6node)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	n := w.start(t, nodeOptions{Program: script, Env: []string{"V6NODE_BUNDLE=" + w.programs.Bundle}})
	completed[any](t, n.call(t, "noop", nil))
}

func joined(t *testing.T, w *world) {
	ct := w.startServer(t, "rl")
	t.Cleanup(func() { ct.stop(t) })
	w.installNetwork(t, ct)
	ct.waitNetwork(t, "v6node")
	n := w.start(t, nodeOptions{Endpoint: ct.endpoint()})
	if inside := userNamespace(t, n.PID()); inside == userNamespace(t, os.Getpid()) {
		t.Error("the node is in the machine's user namespace")
	}
	g := n.hold(t)
	n.Kill()
	n.restart(t)
	n.attended(t, g)
	g.release(t)
	n.takenOver(t, g, true)
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	// Root cannot look into the mounts of that containerd.
	root := exec.CommandContext(within(t), w.programs.V6node, "run", "--config", n.Config, "--state-dir", t.TempDir(), "--cri-endpoint", ct.endpoint())
	out, err := root.CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprintf("they belong to user %d: run the node as the user who runs that", w.user.uid)) {
		t.Errorf("a node of root: %v: %s", err, out)
	}
}

// userDatabases proves that user 0 of an algorithm is the user who runs the node,
// and that nobody is another user of the machine.
func userDatabases(t *testing.T, w *world) {
	dir := filepath.Join(w.dir, "databases")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var config []map[string]any
	for _, f := range []struct {
		label    string
		uid, gid int
		mode     os.FileMode
	}{
		{"own", w.user.uid, w.user.gid, 0o600},
		{"foreign", strangerID, strangerID, 0o600},
		{"foreign_group", strangerID, strangerID, 0o640},
		{"own_group", strangerID, w.user.gid, 0o640},
		{"public", strangerID, strangerID + 1, 0o604},
	} {
		path := filepath.Join(dir, f.label+".csv")
		if err := errors.Join(os.WriteFile(path, []byte(patients), 0o600), os.Chown(path, f.uid, f.gid), os.Chmod(path, f.mode)); err != nil {
			t.Fatal(err)
		}
		config = append(config, map[string]any{"label": f.label, "uri": path, "type": "csv"})
	}
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": config}})
	as1000, err := w.lab.Push("rootless/user", w.programs.Algorithm("average"), func(s *imagekit.Spec) { s.User = "1000" })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		image imagekit.Ref
		label string
		says  []string // nil: the algorithm reads it
	}{
		{w.average, "own", nil},
		{w.average, "own_group", nil},
		{w.average, "public", nil},
		{w.average, "foreign", []string{"cannot be read", "permission denied"}},
		{w.average, "foreign_group", []string{"cannot be read", fmt.Sprintf("user 0, which is user %d of this machine", w.user.uid), "another user of this machine"}},
		{as1000, "public", nil},
		{as1000, "own", []string{"cannot be read", "user 1000, which is user", "permissions"}},
	} {
		done := n.call(t, "partial", kwargs{"column": "age"}, image(c.image.Tag), databases(c.label))
		if c.says != nil {
			n.failed(t, done, standin.StatusStartFailed, append(c.says, `"`+c.label+`"`)...)
			continue
		}
		if got := completed[struct{ Sum, Count float64 }](t, done); got.Sum != 120 || got.Count != 3 {
			t.Errorf("database %q: the algorithm read %+v", c.label, got)
		}
	}
}

// userNamespace of a process.
func userNamespace(t *testing.T, pid int) string {
	t.Helper()
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sameNamespace(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	before := userNamespace(t, n.PID())
	if before == userNamespace(t, os.Getpid()) {
		t.Fatal("the node is in the machine's user namespace")
	}
	n.Kill()
	n.restart(t)
	if after := userNamespace(t, n.PID()); after != before {
		t.Errorf("it was in %s and now is in %s", before, after)
	}
	completed[any](t, n.call(t, "noop", nil))
}

func noNamespace(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	tr := &traces{dirs: []string{n.StateDir}}
	eventually(t, func() error {
		if left := tr.processes(t); len(left) > 0 {
			return fmt.Errorf("process %d is left: %s", left[0], commandLine(left[0]))
		}
		return nil
	})
}

func severalUsers(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	if log := n.Log(1 << 20); !strings.Contains(log, "all algorithms run as this one user") || !strings.Contains(log, "usermod --add-subuids") {
		t.Errorf("the log does not say that there is one user, and why:\n%s", log)
	}
	ref := w.push(t, "suite/users", func(s *imagekit.Spec) {
		s.User = "1000:1000"
		s.Gzip = true
		s.Files = append(imagekit.Skeleton(), imagekit.File{Path: "/theirs", Mode: 0o400, UID: 1000, GID: 42, Data: []byte("x")})
	})
	got := completed[sight](t, n.call(t, "probe", nil, image(ref.Tag)))
	if got.UID != 0 || !slices.Contains(got.Root, "theirs") {
		t.Errorf("user %d, files in /: %q", got.UID, got.Root)
	}
}
