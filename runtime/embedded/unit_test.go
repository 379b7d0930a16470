package embedded

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/internal/pidfd"
)

func TestSamePauseProgramGivesTheSameImage(t *testing.T) {
	a, err := newPauseImage([]byte("program"), "amd64", pauseUser)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newPauseImage([]byte("program"), "amd64", pauseUser)
	if err != nil {
		t.Fatal(err)
	}
	if a.manifest.digest != b.manifest.digest || a.ref() != b.ref() {
		t.Errorf("%s and %s", a.ref(), b.ref())
	}
	// Digests reach people's clusters: they change only on purpose.
	const want = "localhost/v6node/pause:23b45dd960b11914"
	if a.ref() != want {
		t.Errorf("ref = %s, want %s", a.ref(), want)
	}
	c, err := newPauseImage([]byte("another"), "amd64", pauseUser)
	if err != nil {
		t.Fatal(err)
	}
	if c.ref() == a.ref() {
		t.Error("another program has the same reference")
	}
}

func TestOversizedPauseProgramIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, make([]byte, maxPause+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPauseImage(path, pauseUser); err == nil {
		t.Error("no error")
	}
}

func TestMissingProgramIsNamed(t *testing.T) {
	dir := t.TempDir()
	_, err := FindBundle("", dir)
	if !errors.Is(err, ErrNoBundle) || !strings.Contains(err.Error(), filepath.Join(dir, containerdName)) {
		t.Errorf("error: %v", err)
	}
}

func TestSecretsOfTheNodeDoNotReachContainerd(t *testing.T) {
	env := environment([]string{"V6NODE_API_KEY=secret", "PATH=/opt/bin", "HTTPS_PROXY=http://proxy:3128", "AWS_SECRET_ACCESS_KEY=x", "ROOTLESSKIT_STATE_DIR=/x"})
	want := []string{"PATH=/opt/bin:/usr/local/sbin:/usr/sbin:/sbin", "HTTPS_PROXY=http://proxy:3128", "ROOTLESSKIT_STATE_DIR=/x"}
	if !slices.Equal(env, want) {
		t.Errorf("environment %q, want %q", env, want)
	}
	if env := environment(nil); len(env) != 1 || !strings.HasPrefix(env[0], "PATH=/") {
		t.Errorf("environment without any: %q", env)
	}
}

func TestDirectoryThatOthersCanWriteToIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := privateDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(dir); err != nil {
		t.Errorf("second time: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(dir); err == nil {
		t.Error("a world-writable directory was accepted")
	}
	link := dir + "-link"
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(link); err == nil {
		t.Error("a symbolic link was accepted")
	}
}

func TestLockIsExclusiveAndNamesItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second lock: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = lock(path); err != nil {
		t.Fatalf("after release: %v", err)
	}
	f.Close()
}

func TestLongLogIsCutAndItsEndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(bytes.Repeat([]byte("x"), 100), "the end"...)); err != nil {
		t.Fatal(err)
	}
	if err := capLog(path, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(path)
	if err != nil || string(now) != "more" {
		t.Errorf("log = %q, %v", now, err)
	}
	old, err := os.ReadFile(path + ".1")
	if err != nil || string(old) != "xxxthe end" {
		t.Errorf("older log = %q, %v", old, err)
	}
}

func TestLastLineOfTheLogIsTheReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("an earlier start\nfirst\nthe reason\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastWords(path, 17); got != "the reason" {
		t.Errorf("last words %q", got)
	}
	if got := lastWords(path, logSize(path)); got != "" {
		t.Errorf("last words of a silent start: %q", got)
	}
}

func TestProcessIsNotTakenForOneThatHadItsNumber(t *testing.T) {
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLayout("/r", "/s")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*record{
		"other start time":    {PID: os.Getpid(), Start: start + 1, Boot: boot},
		"other boot":          {PID: os.Getpid(), Start: start, Boot: "another"},
		"other program":       {PID: os.Getpid(), Start: start, Boot: boot},
		"no process any more": {PID: 1<<22 + 1, Start: start, Boot: boot},
	} {
		if p, err := r.process(l); p != nil || err != nil {
			t.Errorf("%s: process %v, error %v", name, p, err)
		}
	}
}

func TestDamagedRecordIsNoRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	for _, content := range []string{"", "{", `{"pid":1}`, `{"pid":-5}`, "null"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := readRecord(path); r != nil || err != nil {
			t.Errorf("%q: %v, %v", content, r, err)
		}
	}
}

func TestConfigurationFollowsTheHost(t *testing.T) {
	l, err := newLayout("/var/lib/v6node", "/run/v6node")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		host      host
		has, lack []string
	}{
		"full": {host{overlay: true, volatile: true, oomAdjustable: true, appArmor: true, systemdCgroups: true},
			[]string{`snapshotter = "overlayfs"`, `mount_options = ["volatile"]`, "restrict_oom_score_adj = false", "disable_apparmor = false", "SystemdCgroup = true"},
			[]string{`"io.containerd.snapshotter.v1.overlayfs",`, `"native"`}},
		"bare": {host{},
			[]string{`snapshotter = "native"`, "restrict_oom_score_adj = true", "disable_apparmor = true", "SystemdCgroup = false"},
			[]string{"volatile", `"io.containerd.snapshotter.v1.native"`}},
	} {
		b, err := renderConfig(l, Bundle{Shim: "/b/shim", Runc: `/b/ru"nc`}, c.host, "localhost/v6node/pause:1", nil, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(c.has, `sandbox = "localhost/v6node/pause:1"`, `BinaryName = "/b/ru\"nc"`, `socket_dir = "/run/v6node/s"`) {
			if !strings.Contains(string(b), s) {
				t.Errorf("%s: no %s in\n%s", name, s, b)
			}
		}
		for _, s := range c.lack {
			if strings.Contains(string(b), s) {
				t.Errorf("%s: %s in\n%s", name, s, b)
			}
		}
	}
}

func TestWithoutControlGroupsAnotherRuncIsTaken(t *testing.T) {
	l, err := newLayout("/var/lib/v6node", "/run/v6node")
	if err != nil {
		t.Fatal(err)
	}
	b, err := renderConfig(l, Bundle{Dir: "/b", Shim: "/b/shim", Runc: "/b/runc"}, host{userNamespace: true}, "pause", nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `BinaryName = "/b/v6node-runc"`) || strings.Contains(string(b), `"/b/runc"`) {
		t.Errorf("%s", b)
	}
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	good := Config{Root: dir + "/r", State: dir + "/s", PluginBinary: program, CNIConfName: "a.conflist",
		Bundle: Bundle{Dir: dir, Containerd: program, Shim: program, Runc: program, Pause: program}}
	c := good
	if err := c.normalize(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no state":         func(c *Config) { c.State = "" },
		"same directories": func(c *Config) { c.State = c.Root },
		"newline in path":  func(c *Config) { c.State += "\n" },
		"no runc":          func(c *Config) { c.Bundle.Runc = dir + "/none" },
		"relative plugin":  func(c *Config) { c.PluginBinary = "v6node" },
		"conf elsewhere":   func(c *Config) { c.CNIConfName = "../a.conflist" },
		"unknown level":    func(c *Config) { c.LogLevel = "loud" },
	} {
		c := good
		change(&c)
		if err := c.normalize(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOnlyTheGivenNetworkIsInstalled(t *testing.T) {
	dir := t.TempDir()
	l, err := newLayout(filepath.Join(dir, "root"), filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	l.state = filepath.Join(dir, "containerd")
	if l.shortPath {
		l.sockets = filepath.Join(dir, "sockets")
		l.shimSocks = filepath.Join(l.sockets, "s")
	}
	if err := l.create(); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(l.cniConf, "10-stray.conflist")
	if err := os.WriteFile(stray, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Config{CNIConfList: []byte(testConfList), CNIConfName: "00-test.conflist", PluginBinary: "/opt/v6node"}
	for range 2 {
		if err := installCNI(l, c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stray configuration: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(l.cniBin, "standin")); err != nil || target != "/opt/v6node" {
		t.Errorf("plugin: %s, %v", target, err)
	}
	for _, bad := range []string{"", "{", `{"plugins":[{"type":"../x"}]}`, `{"plugins":[{}]}`} {
		if err := installCNI(l, &Config{CNIConfList: []byte(bad), CNIConfName: "a.conflist"}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1"))
	f.Add([]byte("42 (z) Z 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1"))
	f.Add([]byte("42 ("))
	f.Fuzz(func(t *testing.T, b []byte) {
		if start, err := parseStat(b); err != nil && start != 0 {
			t.Errorf("start %d with error %v", start, err)
		}
	})
}

func TestStartTimeIsReadBehindAnyName(t *testing.T) {
	got, err := parseStat([]byte("42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1"))
	if err != nil || got != 12345 {
		t.Errorf("start %d, %v", got, err)
	}
	if _, err := parseStat([]byte("42 (z) Z 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1")); !errors.Is(err, pidfd.ErrEnded) {
		t.Errorf("zombie: %v", err)
	}
}
