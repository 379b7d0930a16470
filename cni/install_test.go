package cni

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func emptyLayout(t *testing.T) Layout {
	dir := t.TempDir()
	return Layout{ConfDir: filepath.Join(dir, "etc", "net.d"), BinDir: filepath.Join(dir, "opt", "bin")}
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// files lists everything under the layout's two directories.
func files(t *testing.T, l Layout) []string {
	t.Helper()
	all := []string{}
	for _, dir := range []string{l.ConfDir, l.BinDir} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
	}
	return all
}

const calico = `{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico"},{"type":"portmap"}]}`

func TestInstallWritesWhatARuntimeNeedsAndNothingElse(t *testing.T) {
	l := emptyLayout(t)
	r, err := Install(l, self(t))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Changed || !r.Effective || !r.Installed() || len(r.Problems) != 0 || r.Plugin.Version == "" {
		t.Errorf("%+v", r)
	}
	if got := strings.Join(files(t, l), " "); got != ConfName+" "+LoopbackName+" "+PluginName {
		t.Errorf("there are %s", got)
	}
	for path, mode := range map[string]os.FileMode{l.confFile(): 0o644, l.pluginFile(): 0o755, l.ConfDir: 0o755, l.BinDir: 0o755} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if data, err := os.ReadFile(l.confFile()); err != nil || !bytes.Equal(data, ConfList()) {
		t.Errorf("%q, %v", data, err)
	}
}

func TestInstallAgainChangesNothing(t *testing.T) {
	l := emptyLayout(t)
	if _, err := Install(l, self(t)); err != nil {
		t.Fatal(err)
	}
	stat := func(path string) unix.Stat_t {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	conf, plugin := stat(l.confFile()), stat(l.pluginFile())
	r, err := Install(l, self(t))
	if err != nil || r.Changed || !r.Effective {
		t.Errorf("%+v, %v", r, err)
	}
	if stat(l.confFile()).Ino != conf.Ino || stat(l.pluginFile()).Ino != plugin.Ino {
		t.Error("a file was replaced")
	}
}

func TestInstallRepairsAndRenews(t *testing.T) {
	for name, spoil := range map[string]func(l Layout) error{
		"plugin gone":          func(l Layout) error { return os.Remove(l.pluginFile()) },
		"configuration gone":   func(l Layout) error { return os.Remove(l.confFile()) },
		"plugin of old":        func(l Layout) error { return appendTo(l.pluginFile(), "x") },
		"configuration of old": func(l Layout) error { return appendTo(l.confFile(), " ") },
		"not executable":       func(l Layout) error { return os.Chmod(l.pluginFile(), 0o600) },
		"not readable":         func(l Layout) error { return os.Chmod(l.confFile(), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			l := emptyLayout(t)
			if _, err := Install(l, self(t)); err != nil {
				t.Fatal(err)
			}
			if err := spoil(l); err != nil {
				t.Fatal(err)
			}
			// A network that came later is no reason not to repair ours.
			write(t, filepath.Join(l.ConfDir, "10-calico.conflist"), calico)
			r, err := Install(l, self(t))
			if name == "configuration gone" {
				if !errors.Is(err, ErrHidesNetwork) {
					t.Fatalf("%v", err)
				}
				r, err = Install(l, self(t), Force())
			}
			if err != nil || !r.Changed || !r.Effective {
				t.Errorf("%+v, %v", r, err)
			}
			if r.Conf.State != Current || r.Plugin.State != Current {
				t.Errorf("%+v", r)
			}
			for path, mode := range map[string]os.FileMode{l.confFile(): 0o644, l.pluginFile(): 0o755} {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
		})
	}
}

func appendTo(path, s string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, s...), 0o644)
}

func TestInstallDoesNotHideAForeignNetworkSilently(t *testing.T) {
	l := emptyLayout(t)
	write(t, filepath.Join(l.ConfDir, "10-calico.conflist"), calico)
	write(t, filepath.Join(l.ConfDir, "99-loopback.conf"), `{"cniVersion":"0.3.1","name":"lo","type":"loopback"}`)
	write(t, filepath.Join(l.ConfDir, "README"), "not a configuration")
	_, err := Install(l, self(t))
	if !errors.Is(err, ErrHidesNetwork) {
		t.Fatal(err)
	}
	oneSentence(t, err, "10-calico.conflist", `"k8s-pod-network"`, "kubelet", "--force")
	if strings.Contains(err.Error(), "loopback") {
		t.Error("a loopback is not a network to be hidden")
	}
	if got := files(t, l); len(got) != 3 {
		t.Errorf("it wrote something: %v", got)
	}
	r, err := Install(l, self(t), Force())
	if err != nil || !r.Effective || len(r.Others) != 1 || r.Others[0].Earlier || r.Others[0].Network != "k8s-pod-network" {
		t.Errorf("with Force: %+v, %v", r, err)
	}
}

func TestInstallSaysWhenItWouldHaveNoEffect(t *testing.T) {
	l := emptyLayout(t)
	write(t, filepath.Join(l.ConfDir, "00-calico.conflist"), calico)
	_, err := Install(l, self(t))
	if !errors.Is(err, ErrShadowed) {
		t.Fatal(err)
	}
	oneSentence(t, err, "00-calico.conflist", "rename")
	r, err := Install(l, self(t), Force())
	if err != nil || !r.Installed() || r.Effective || len(r.Problems) != 1 || !r.Others[0].Earlier {
		t.Errorf("with Force: %+v, %v", r, err)
	}
}

func TestForeignFilesAreNeverTouched(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, l Layout){
		"a script under the plugin's name":  func(t *testing.T, l Layout) { write(t, l.pluginFile(), "#!/bin/sh\n") },
		"another Go program":                func(t *testing.T, l Layout) { copyGo(t, l.pluginFile()) },
		"a link under the plugin's name":    func(t *testing.T, l Layout) { link(t, self(t), l.pluginFile()) },
		"a network under our name":          func(t *testing.T, l Layout) { write(t, l.confFile(), calico) },
		"rubbish under our name":            func(t *testing.T, l Layout) { write(t, l.confFile(), "{") },
		"our network with a plugin added":   func(t *testing.T, l Layout) { write(t, l.confFile(), tuned()) },
		"our network without our own mark":  func(t *testing.T, l Layout) { write(t, l.confFile(), unmarked()) },
		"a directory under the conf's name": func(t *testing.T, l Layout) { write(t, filepath.Join(l.confFile(), "x"), "") },
	} {
		t.Run(name, func(t *testing.T) {
			l := emptyLayout(t)
			put(t, l)
			before := files(t, l)
			if r, err := Install(l, self(t), Force()); !errors.Is(err, ErrForeignFile) {
				t.Errorf("Install: %+v, %v", r, err)
			} else {
				oneSentence(t, err, "move it away")
			}
			if r, err := Uninstall(l); err != nil || r.Changed {
				t.Errorf("Uninstall: %+v, %v", r, err)
			}
			if r, err := Inspect(l); err != nil || r.Effective || r.Installed() || len(r.Problems) == 0 {
				t.Errorf("Inspect: %+v, %v", r, err)
			}
			if after := files(t, l); strings.Join(before, " ") != strings.Join(after, " ") {
				t.Errorf("%v became %v", before, after)
			}
		})
	}
}

func tuned() string {
	return strings.Replace(string(ConfList()), `"type": "v6node"`, `"type": "v6node"}, {"type": "tuning"`, 1)
}

func unmarked() string { return strings.Replace(string(ConfList()), `"managedBy": "v6node",`, "", 1) }

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// copyGo puts the go command, a Go program that is not ours, at path.
func copyGo(t *testing.T, path string) {
	t.Helper()
	program, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(data))
}

func TestInstallTakesOnlyOurOwnProgram(t *testing.T) {
	l := emptyLayout(t)
	for _, exe := range []string{"/bin/sh", filepath.Join(t.TempDir(), "missing")} {
		if _, err := Install(l, exe); !errors.Is(err, errNotOurs) {
			t.Errorf("%s: %v", exe, err)
		}
	}
	if got := files(t, l); len(got) != 0 {
		t.Errorf("it wrote %v", got)
	}
}

func TestUninstallRemovesWhatWasInstalledAndNothingElse(t *testing.T) {
	l := emptyLayout(t)
	if _, err := Install(l, self(t)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(l.ConfDir, "10-calico.conflist"), calico)
	write(t, filepath.Join(l.BinDir, "calico"), "x")
	r, err := Uninstall(l)
	if err != nil || !r.Changed || r.Conf.State != Absent || r.Plugin.State != Absent {
		t.Errorf("%+v, %v", r, err)
	}
	if got := strings.Join(files(t, l), " "); got != "10-calico.conflist calico" {
		t.Errorf("left: %s", got)
	}
	if r, err := Uninstall(l); err != nil || r.Changed {
		t.Errorf("again: %+v, %v", r, err)
	}
	if _, err := Uninstall(emptyLayout(t)); err != nil {
		t.Errorf("no directories: %v", err)
	}
}

func TestInspectTellsAStalePlugin(t *testing.T) {
	l := emptyLayout(t)
	if _, err := Install(l, self(t)); err != nil {
		t.Fatal(err)
	}
	if err := appendTo(l.pluginFile(), "x"); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Compare(self(t)); err != nil {
		t.Fatal(err)
	}
	if r.Plugin.State != Stale || !r.Effective || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "another build") {
		t.Errorf("%+v", r)
	}
}

func TestInspectTakesOddConfigurationsAsTheyAre(t *testing.T) {
	l := emptyLayout(t)
	write(t, filepath.Join(l.ConfDir, "0-broken.conf"), "{")
	write(t, filepath.Join(l.ConfDir, "05-big.json"), strings.Repeat(" ", maxConf+1))
	link(t, filepath.Join(l.ConfDir, "missing"), filepath.Join(l.ConfDir, "06-dangling.conf"))
	if err := unix.Mkfifo(filepath.Join(l.ConfDir, "07-fifo.conf"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(l)
	if err != nil || len(r.Others) != 4 || !r.Others[0].Earlier || r.Others[1].Earlier {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestARelativeDirectoryIsRefused(t *testing.T) {
	for _, l := range []Layout{{ConfDir: "net.d"}, {BinDir: "./bin"}} {
		if _, err := Install(l, self(t)); err == nil {
			t.Errorf("Install took %+v", l)
		}
		if _, err := Inspect(l); err == nil {
			t.Errorf("Inspect took %+v", l)
		}
		if _, err := Uninstall(l); err == nil {
			t.Errorf("Uninstall took %+v", l)
		}
	}
}

// containerd ignores the creation of a file in the directory that it watches,
// and reloads when it sees a name go away.
func TestAWatchingRuntimeSeesTheInstallation(t *testing.T) {
	l := emptyLayout(t)
	if err := os.MkdirAll(l.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, l.ConfDir, unix.IN_MOVED_FROM|unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(l, self(t)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatalf("no event: %v", err)
	}
	if !bytes.Contains(buf[:n], []byte(".v6node-")) || !bytes.Contains(buf[:n], []byte(ConfName+"\x00")) {
		t.Errorf("events: %q", buf[:n])
	}
}

func TestAForeignLoopbackIsKept(t *testing.T) {
	l := emptyLayout(t)
	write(t, l.loopbackFile(), "the distribution's")
	r, err := Install(l, self(t))
	if err != nil || !r.Effective || len(r.Problems) != 0 || r.Loopback.State != Foreign {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Uninstall(l); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(l.loopbackFile()); err != nil || string(data) != "the distribution's" {
		t.Errorf("%q, %v", data, err)
	}
}
