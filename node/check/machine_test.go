package check

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// asUserChecks are those that a test makes as a normal user.
var asUserChecks = map[string]func(arg string) func(context.Context, func(Result)) error{
	"database":  func(arg string) func(context.Context, func(Result)) error { return database(databaseAt(arg)) },
	"directory": lookDirectory,
	"overlay": func(arg string) func(context.Context, func(Result)) error {
		return overlay{dir: arg, rootless: true}.look
	},
	"subordinate ids": func(string) func(context.Context, func(Result)) error { return subordinate },
	"control groups": func(string) func(context.Context, func(Result)) error {
		return Options{}.cgroups(machine{rootless: true})
	},
	"namespaces": func(string) func(context.Context, func(Result)) error {
		return machine{root: "/", rootless: true}.namespaces
	},
}

func lookDirectory(arg string) func(context.Context, func(Result)) error {
	return func(_ context.Context, report func(Result)) error {
		return directory(report, "state directory", arg, "state_dir")
	}
}

// files makes a directory with the kernel's files of a machine.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range texts {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTheKernelsAgeIsJudged(t *testing.T) {
	for release, c := range map[string]struct {
		status Status
		text   string
	}{
		"6.1.0-31-amd64":      {OK, "Linux 6.1.0"},
		"5.12.0":              {OK, ""},
		"5.11.22":             {Warn, "recursive read-only"},
		"5.4.0-200-generic":   {Warn, "overlayfs without root"},
		"3.10.0-1160.el7":     {Warn, "older than what container runtimes"},
		"something different": {Skip, "something different"},
	} {
		got := results(t, machine{release: release}.kernel)
		want(t, got, "n", c.status, c.text)
	}
	want(t, results(t, machine{root: "/"}.kernel), "n", OK) // Go itself needs no less than this machine has
}

func TestLowSettingsComeWithTheCommandThatRaisesThem(t *testing.T) {
	root := files(t, map[string]string{
		"proc/sys/fs/inotify/max_user_instances": "64\n", "proc/sys/kernel/pid_max": "4194304\n", "proc/sys/kernel/keys/maxkeys": "200\n",
	})
	got := results(t, machine{root: root}.settings)
	want(t, got, "n", Warn, "fs.inotify.max_user_instances is 64", "sysctl -w fs.inotify.max_user_instances=128", "/etc/sysctl.d")
	if len(got) != 1 {
		t.Errorf("what is unknown, high enough, or bounds others was reported: %+v", got)
	}
	if got := results(t, machine{root: root, rootless: true}.settings); len(got) != 2 {
		t.Errorf("a user's keys are not reported: %+v", got)
	}
	want(t, results(t, machine{root: t.TempDir()}.settings), "n", OK)
}

func TestWhatTheKernelLacksForSandboxesFails(t *testing.T) {
	empty := machine{root: t.TempDir()}
	want(t, results(t, empty.seccomp), "n", Fail, "CONFIG_SECCOMP_FILTER")
	want(t, results(t, empty.namespaces), "n", Fail, "no mnt namespaces")
	want(t, results(t, empty.appArmor), "n", Skip)
	some := map[string]string{"proc/sys/user/max_net_namespaces": "0", "sys/module/apparmor/parameters/enabled": "Y\n"}
	for _, k := range kinds {
		some["proc/self/ns/"+k.file] = ""
	}
	m := machine{root: files(t, some)}
	want(t, results(t, m.namespaces), "n", Fail, "user.max_net_namespaces is 0", "sysctl -w user.max_net_namespaces=10000")
	want(t, results(t, m.appArmor), "n", Warn, "apt-get install apparmor")
	delete(some, "proc/sys/user/max_net_namespaces")
	some["proc/sys/kernel/unprivileged_userns_clone"], some["sbin/apparmor_parser"] = "0", ""
	m = machine{root: files(t, some), rootless: true}
	want(t, results(t, m.namespaces), "n", Fail, "sysctl -w kernel.unprivileged_userns_clone=1")
	want(t, results(t, machine{root: m.root}.appArmor), "n", OK)
}

func TestMissingCapabilitiesAreNamed(t *testing.T) {
	status := func(caps string) machine {
		return machine{root: files(t, map[string]string{"proc/self/status": "Name:\tx\nCapEff:\t" + caps + "\n"})}
	}
	want(t, results(t, status("000001ffffffffff").privileges), "n", OK)
	want(t, results(t, status("000001fffeffffff").privileges), "n", Warn, "CAP_SYS_RESOURCE")
	want(t, results(t, status("000001ffffdfffff").privileges), "n", Fail, "CAP_SYS_ADMIN")
	want(t, results(t, machine{rootless: true}.privileges), "n", OK, "without root")
}

func TestThisMachineMakesNamespacesAndOverlays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	want(t, results(t, machine{root: "/"}.namespaces), "n", OK)
	dir := t.TempDir()
	want(t, results(t, overlay{dir: filepath.Join(dir, "not", "there")}.look), "n", OK, dir)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the probe left %v (%v)", left, err)
	}
}

func TestANormalUserTriesAnOverlayInANamespace(t *testing.T) {
	dir := openDir(t)
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	if got := lookAs(t, "namespaces", ""); got[0].Status != OK {
		t.Skipf("no user namespaces here: %+v", got)
	}
	got := lookAs(t, "overlay", dir)
	if len(got) != 1 || got[0].Status != OK {
		t.Errorf("%+v", got)
	}
	// One that the user cannot write to.
	closed := openDir(t)
	want(t, lookAs(t, "overlay", closed), "", Warn, "permission denied", "copied")
}

func TestANormalUserIsToldWhatIsMissingToRunWithoutRoot(t *testing.T) {
	want(t, lookAs(t, "subordinate ids", ""), "", Warn, "subordinate ids in /etc/subuid", "usermod --add-subuids")
	want(t, lookAs(t, "control groups", ""), "", Fail, "docs/rootless.md")
}

func TestTheControllersOfAUsersSystemdAreRead(t *testing.T) {
	const file = "user.slice/user-1000.slice/user@1000.service/cgroup.controllers"
	for text, missing := range map[string]int{"cpuset cpu io memory pids\n": 0, "memory pids\n": 1, "": 3} {
		if got, _, managed := ofUser(files(t, map[string]string{file: text}), 1000); len(got) != missing || !managed {
			t.Errorf("%q: %q are missing (%t)", text, got, managed)
		}
	}
	if _, _, managed := ofUser(t.TempDir(), 1000); managed {
		t.Error("there is no systemd")
	}
}

// tmpfs mounts a small file system.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("a tmpfs cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAFullFileSystemFails(t *testing.T) {
	dir := tmpfs(t, "size=1m,nr_inodes=50,mode=0700")
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	got := results(t, lookDirectory(filepath.Join(dir, "state")))
	want(t, got, "state directory", Fail, dir, "0 bytes free", "v6node gc", "state_dir")
	want(t, got, "state directory, inodes", Fail, "room for")
	want(t, got, "state directory, kind", Warn, "in memory")
}

func TestAStateDirectoryMustBeOnesOwn(t *testing.T) {
	dir := openDir(t)
	want(t, results(t, lookDirectory(dir)), "state directory", Warn, "chmod 700 "+dir)
	want(t, lookAs(t, "directory", dir), "state directory", Fail, "cannot be written to", "permission denied")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, results(t, lookDirectory(filepath.Join(file, "state"))), "state directory", Fail, "cannot be used")
}
