package userns

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeMachine has the files that are given and every program but the missing.
func fakeMachine(t *testing.T, files map[string]string, missing ...string) machine {
	t.Helper()
	m := machine{root: t.TempDir(), look: func(program string) (string, error) {
		for _, p := range missing {
			if p == program {
				return "", exec.ErrNotFound
			}
		}
		return "/usr/bin/" + program, nil
	}}
	for name, text := range files {
		path := filepath.Join(m.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestWhatIsMissingIsSaidWithItsCure(t *testing.T) {
	enough := map[string]string{"etc/subuid": "alice:100000:65536\n", "etc/subgid": "1000:100000:65536\n"}
	with := func(name, text string) map[string]string {
		files := map[string]string{name: text}
		for n, x := range enough {
			if n != name {
				files[n] = x
			}
		}
		return files
	}
	for name, c := range map[string]struct {
		files   map[string]string
		missing []string
		want    []string // nil is for success
	}{
		"all there":                {enough, nil, nil},
		"ids by number and name":   {with("etc/subuid", "alice:100000:65535\n1000:300000:1\n"), nil, nil},
		"damaged lines are passed": {with("etc/subuid", "# x\nalice:x:65536\nalice:1\nalice:100000:65536\n"), nil, nil},
		"no ids at all":            {nil, nil, []string{"usermod --add-subuids 100000-165535 alice", "usermod --add-subgids 100000-165535 alice"}},
		"ids of others":            {with("etc/subuid", "bob:100000:65536\n"), nil, []string{"has 0 subordinate ids", "--add-subuids 165536-231071 alice"}},
		"too few ids":              {with("etc/subgid", "alice:100000:1000\n"), nil, []string{"has 1000 subordinate ids in /etc/subgid", "--add-subgids 101000-166535 alice"}},
		"no newuidmap":             {enough, []string{"newuidmap"}, []string{"newuidmap is missing", "apt-get install uidmap"}},
		"no nsenter":               {enough, []string{"nsenter"}, []string{"apt-get install util-linux"}},
		"no namespaces":            {with("proc/sys/user/max_user_namespaces", "0\n"), nil, []string{"sysctl -w user.max_user_namespaces"}},
		"namespaces of root":       {with("proc/sys/kernel/unprivileged_userns_clone", "0\n"), nil, []string{"sysctl -w kernel.unprivileged_userns_clone=1"}},
	} {
		m := fakeMachine(t, c.files, c.missing...)
		err := errors.Join(m.require(), m.requireIDs(owner{1000, "alice"}))
		if c.want == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ErrUnable) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: no %q in: %v", name, w, err)
			}
		}
	}
}

func TestOneIDTakesNoIDsAndNoSetuidProgram(t *testing.T) {
	if err := fakeMachine(t, nil, "newuidmap", "newgidmap").require(); err != nil {
		t.Error(err)
	}
	if err := fakeMachine(t, nil, "unshare").require(); !errors.Is(err, ErrUnable) {
		t.Error(err)
	}
}

func TestIDsOfADirectoryServiceCount(t *testing.T) {
	m := fakeMachine(t, nil)
	m.subids = func(flag, name string) string { return "0: " + name + " 100000 65536\n" }
	if err := m.requireIDs(owner{1000, "alice"}); err != nil {
		t.Error(err)
	}
	m.subids = func(string, string) string { return "Error fetching ranges\n" }
	if err := m.requireIDs(owner{1000, "alice"}); !errors.Is(err, ErrUnable) {
		t.Error(err)
	}
}

func FuzzRanges(f *testing.F) {
	f.Add("alice:100000:65536\n")
	f.Add(":::\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range parseRanges(text) {
			if r.first < 0 || r.count < 0 {
				t.Errorf("%+v", r)
			}
		}
	})
}
