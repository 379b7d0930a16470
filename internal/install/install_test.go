package install

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// source makes what is to be installed, each program with its version in it.
func source(t *testing.T, version string, without ...string) Source {
	t.Helper()
	dir := t.TempDir()
	write := func(path string) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(path+version), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s := Source{Version: version, Program: write("v6node"), Plugin: write("v6node-cni"), Bundle: filepath.Join(dir, "bundle"),
		Completions: map[string][]byte{"bash": []byte("b"), "zsh": []byte("z"), "fish": []byte("f")}}
	for _, name := range slices.Concat(required, optional) {
		if !slices.Contains(without, name) {
			write(filepath.Join("bundle", name))
		}
	}
	return s
}

func put(t *testing.T, l Layout, s Source) Report {
	t.Helper()
	r, err := Install(context.Background(), l, s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tree lists what is below a directory, with modes.
func tree(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	out := map[string]fs.FileMode{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		out[strings.TrimPrefix(path, dir)] = info.Mode()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func states(r Report) map[string]int {
	out := map[string]int{}
	for _, f := range r.Files {
		out[f.State]++
	}
	return out
}

func TestInstallPutsEveryFileInItsPlaceWhateverTheUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	l := System("/usr/local", t.TempDir())
	put(t, l, source(t, "1"))
	got := tree(t, l.DestDir)
	for path, mode := range map[string]fs.FileMode{
		"/usr/local/bin/v6node":                                  0o755,
		"/usr/local/libexec/v6node":                              fs.ModeDir | 0o755,
		"/usr/local/libexec/v6node/containerd":                   0o755,
		"/usr/local/libexec/v6node/v6node-cni":                   0o755,
		"/usr/local/libexec/v6node/algorithms/average":           0o755,
		"/usr/local/lib/systemd/system/v6node@.service":          0o644,
		"/usr/local/lib/systemd/user/v6node.service":             0o644,
		"/usr/local/lib/tmpfiles.d/v6node.conf":                  0o644,
		"/usr/local/share/bash-completion/completions/v6node":    0o644,
		"/usr/local/share/zsh/site-functions/_v6node":            0o644,
		"/usr/local/share/fish/vendor_completions.d/v6node.fish": 0o644,
		"/etc/v6node": fs.ModeDir | 0o700,
	} {
		if got[path] != mode {
			t.Errorf("%s has mode %v, wanted %v", path, got[path], mode)
		}
	}
	for path := range got {
		if strings.Contains(path, ".new-") {
			t.Errorf("%s is left", path)
		}
	}
}

func TestUnitsStartTheInstalledProgram(t *testing.T) {
	l := System("/opt/v6", t.TempDir())
	put(t, l, source(t, "1"))
	for _, unit := range []string{"lib/systemd/system/v6node@.service", "lib/systemd/user/v6node.service"} {
		text, err := os.ReadFile(l.under(unit))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\nExecStart=/opt/v6/bin/v6node run ") || strings.Contains(string(text), "/usr/local") {
			t.Errorf("%s:\n%s", unit, text)
		}
	}
}

func TestInstallAgainChangesNothing(t *testing.T) {
	l, s := System("/usr", t.TempDir()), source(t, "1")
	put(t, l, s)
	before, err := os.Stat(l.under(bundleDir + "/containerd"))
	if err != nil {
		t.Fatal(err)
	}
	if r := put(t, l, s); r.Changed || states(r)[Unchanged] != len(r.Files) {
		t.Errorf("%+v", r)
	}
	after, err := os.Stat(l.under(bundleDir + "/containerd"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
		t.Error("containerd was written again")
	}
}

func TestInstallMendsWhatIsDamaged(t *testing.T) {
	l, s := System("/usr", t.TempDir()), source(t, "1")
	put(t, l, s)
	if err := os.Chmod(l.under("bin/v6node"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.under(bundleDir+"/runc"), 3); err != nil {
		t.Fatal(err)
	}
	if r := put(t, l, s); states(r)[Renewed] != 2 {
		t.Errorf("%+v", r)
	}
}

func TestAnUpgradeReplacesByRenamingAndTakesAwayWhatIsNoLonger(t *testing.T) {
	l := System("/usr", t.TempDir())
	put(t, l, source(t, "1"))
	open, err := os.Open(l.under("bin/v6node"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	r := put(t, l, source(t, "2", "crictl"))
	if r.Before != "1" || r.Version != "2" || states(r)[Removed] != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(l.under(bundleDir + "/crictl")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("crictl: %v", err)
	}
	old := make([]byte, 4096)
	n, err := open.Read(old)
	if err != nil || !strings.HasSuffix(string(old[:n]), "1") {
		t.Errorf("who has the old program open reads %q (%v)", old[:n], err)
	}
}

func TestAFailedInstallChangesNothing(t *testing.T) {
	l := System("/usr", t.TempDir())
	put(t, l, source(t, "1"))
	before := tree(t, l.DestDir)
	if _, err := Install(context.Background(), l, source(t, "2", "runc")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if r := put(t, l, source(t, "1")); r.Before != "1" {
		t.Errorf("%+v", r)
	}
	if after := tree(t, l.DestDir); len(after) != len(before) {
		t.Errorf("%v became %v", before, after)
	}
}

func TestAnInterruptedUpgradeIsUninstalledWhole(t *testing.T) {
	l := System("/usr", t.TempDir())
	put(t, l, source(t, "1", "rootlesskit"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Install(ctx, l, source(t, "2", "crictl")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := Uninstall(context.Background(), l, true); err != nil {
		t.Fatal(err)
	}
	if left := tree(t, l.under(".")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestUninstallLeavesNothingOfTheProgramAndAllOfTheAdministrators(t *testing.T) {
	l := System("/usr", t.TempDir())
	for _, dir := range []string{"/usr/bin", "/usr/share/zsh", "/etc/systemd/system/multi-user.target.wants", "/var/lib/v6node/alpha"} {
		if err := os.MkdirAll(l.at(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{"v6node@alpha.service": "/usr/lib/systemd/system/v6node@.service", "other.service": "/lib/systemd/system/other.service"}
	for name, target := range links {
		if err := os.Symlink(target, l.at(filepath.Join("/etc/systemd/system/multi-user.target.wants", name))); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, l.DestDir)
	delete(before, "/etc/systemd/system/multi-user.target.wants/v6node@alpha.service")
	put(t, l, source(t, "1"))
	own := l.at("/etc/v6node/alpha.yaml")
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before["/etc/v6node"], before["/etc/v6node/alpha.yaml"] = fs.ModeDir|0o700, 0o600

	r, err := Uninstall(context.Background(), l, false)
	if err != nil {
		t.Fatal(err)
	}
	if states(r)[Kept] != 2 {
		t.Errorf("%+v", r)
	}
	after := tree(t, l.DestDir)
	for path, mode := range before {
		if after[path] != mode {
			t.Errorf("%s: %v became %v", path, mode, after[path])
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			t.Errorf("%s is left", path)
		}
	}
	if r, err := Uninstall(context.Background(), l, false); err != nil || r.Changed {
		t.Errorf("the second time: %+v, %v", r, err)
	}
	if _, err := Uninstall(context.Background(), l, true); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/etc/v6node", "/var/lib/v6node"} {
		if _, err := os.Stat(l.at(dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after a purge: %v", dir, err)
		}
	}
}

func TestUninstallRefusesWhileAProgramRuns(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	l, s := System("/usr", t.TempDir()), source(t, "1")
	s.Program = sleep
	put(t, l, s)
	running := exec.Command(l.under("bin/v6node"), "1000")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { running.Process.Kill(); running.Wait() }()
	put(t, l, source(t, "2")) // it runs on, from a file that is no longer there
	before := tree(t, l.DestDir)
	if _, err := Uninstall(context.Background(), l, true); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "(v6node)") {
		t.Fatal(err)
	}
	if after := tree(t, l.DestDir); len(after) != len(before) {
		t.Errorf("%v became %v", before, after)
	}
}

func TestPurgeDoesNotReachIntoMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	l := System("/usr", t.TempDir())
	put(t, l, source(t, "1"))
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "patients.csv"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at := l.at("/var/lib/v6node/alpha/data")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(data, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	if _, err := Uninstall(context.Background(), l, true); !errors.Is(err, ErrMounted) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(data, "patients.csv")); err != nil {
		t.Error(err)
	}
}

func TestTwoInstallationsAtOnceAreRefused(t *testing.T) {
	l := System("/usr", t.TempDir())
	put(t, l, source(t, "1"))
	unlock, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := Install(context.Background(), l, source(t, "2")); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	if _, err := Uninstall(context.Background(), l, false); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}

func TestARecordThatNamesForeignFilesIsNotBelieved(t *testing.T) {
	l := System("/usr", t.TempDir())
	put(t, l, source(t, "1"))
	victim := l.at("/etc/passwd")
	if err := os.WriteFile(victim, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.under(recordFile), []byte(`{"files":["../etc/passwd"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Uninstall(context.Background(), l, true); err == nil {
		t.Error("it was believed")
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

func TestAUsersInstallationIsInTheHome(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, v := range []string{"XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		t.Setenv(v, "")
	}
	l, err := User()
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, source(t, "1"))
	text, err := os.ReadFile(filepath.Join(home, ".local/share/systemd/user/v6node.service"))
	if err != nil || !strings.Contains(string(text), "\nExecStart="+home+"/.local/bin/v6node run ") {
		t.Errorf("%v: %s", err, text)
	}
	if _, err := Uninstall(context.Background(), l, true); err != nil {
		t.Fatal(err)
	}
	for path := range tree(t, home) {
		if path != "/.local" && path != "/.config" {
			t.Errorf("%s is left", path)
		}
	}
}
