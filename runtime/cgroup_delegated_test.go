package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheOwnGroupMustBeOneForAllControllers(t *testing.T) {
	for name, c := range map[string]struct {
		version    int
		text, want string // "" is for an error
	}{
		"v2":                  {2, "0::/user.slice/user@1000.service/app.slice/a.scope\n", "/user.slice/user@1000.service/app.slice/a.scope"},
		"v2, settled already": {2, "0::/a.scope/v6node-processes\n", "/a.scope"},
		"v2, the top":         {2, "0::/\n", ""},
		"v1":                  {1, "9:name=systemd:/x\n4:memory:/alice\n3:cpuset:/alice\n2:cpu,cpuacct:/alice\n1:pids:/alice\n0::/\n", "/alice"},
		"v1, different ones":  {1, "4:memory:/alice\n3:cpuset:/\n2:cpu:/alice\n1:pids:/alice\n", ""},
		"v1, one is missing":  {1, "4:memory:/alice\n3:cpuset:/alice\n2:cpu:/alice\n", ""},
	} {
		got, err := ownGroup(c.version, c.text)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// delegated is a group with its files of cgroup v2.
func delegated(t *testing.T, controllers string) *Delegation {
	t.Helper()
	d := &Delegation{Base: "/user/a.scope", host: &cgroupHost{version: 2, unified: t.TempDir()}}
	dir := filepath.Join(d.host.unified, d.Base)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.controllers": controllers} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestAMissingControllerIsNamed(t *testing.T) {
	if err := delegated(t, "cpuset cpu memory pids\n").check(); err != nil {
		t.Error(err)
	}
	if err := delegated(t, "memory pids\n").check(); err == nil || !strings.Contains(err.Error(), "cpu is not delegated") {
		t.Error(err)
	}
}

func TestNobodyElsesGroupIsTaken(t *testing.T) {
	if _, err := FindDelegation("/v6node-no-such-group", os.Getpid()); !errors.Is(err, ErrNotDelegated) {
		t.Errorf("a group that does not exist: %v", err)
	}
}

// What is above the base belongs to others and may not be readable even.
func TestGroupsAreMadeBelowTheBase(t *testing.T) {
	h := &cgroupHost{version: 2, unified: t.TempDir(), base: "/user/a.scope"}
	h.roots = []string{h.unified}
	if err := os.MkdirAll(filepath.Join(h.unified, h.base), 0o700); err != nil {
		t.Fatal(err)
	}
	g := newCgroup(h, Cgroupfs, "node", "run")
	if want := "/user/a.scope/v6node/node/run"; g.Parent() != want {
		t.Errorf("%s, want %s", g.Parent(), want)
	}
	if err := os.MkdirAll(filepath.Join(h.unified, g.rel), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(h.unified, h.base))
	if err != nil || len(left) != 0 {
		t.Errorf("the base must stay, and nothing in it: %v, %v", left, err)
	}
}

func TestWithoutGroupsEveryLimitIsRefused(t *testing.T) {
	g := newCgroup(&cgroupHost{version: 1, none: true}, Cgroupfs, "node", "run")
	if err := g.Create(Resources{PidsLimit: 5}); !errors.Is(err, ErrLimit) {
		t.Errorf("a limit: %v", err)
	}
	if err := g.Create(Resources{}); err != nil {
		t.Errorf("no limit: %v", err)
	}
	if got, err := g.ReadBack(); err != nil || got != (Resources{}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := g.Usage(); err == nil {
		t.Error("there is a count of what nobody counts")
	}
	if err := g.VerifyProcess(os.Getpid(), Resources{}, nil); err != nil {
		t.Error(err)
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}
