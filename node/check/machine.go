package check

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// machine is where the kernel's files are looked at.
type machine struct {
	root     string
	rootless bool
	release  string // "" asks the kernel
}

// text reads one of the kernel's small files, trimmed.
func (m machine) text(file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(m.root, file))
	return strings.TrimSpace(string(b)), err
}

func (m machine) number(file string) (int64, bool) {
	s, err := m.text(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func (m machine) has(file string) bool {
	_, err := os.Stat(filepath.Join(m.root, file))
	return err == nil
}

// What a node gains with a newer kernel, the newest first.
var kernels = []struct {
	major, minor int
	lacks        string
}{
	{5, 12, "it makes no recursive read-only mounts, so that mounts below a database's directory keep their own mode"},
	{5, 11, "it mounts no overlayfs without root, so that a node of a normal user copies every image for every run"},
	{4, 18, "it is older than what container runtimes are made for"},
}

func (m machine) kernel(_ context.Context, report func(Result)) error {
	release := m.release
	if release == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return err
		}
		release = unix.ByteSliceToString(u.Release[:])
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		reporter(report).skip("", "the version of Linux %q is not understood", release)
		return nil
	}
	var lacks []string
	for _, k := range kernels {
		if major < k.major || major == k.major && minor < k.minor {
			lacks = append(lacks, k.lacks)
		}
	}
	if len(lacks) > 0 {
		reporter(report).warn("", "boot Linux 5.12 or newer", "Linux %s: %s", release, strings.Join(lacks, "; "))
		return nil
	}
	reporter(report).ok("", "Linux %s", release)
	return nil
}

// needed are the capabilities without which no sandbox is made or entered.
var needed = []struct {
	number int
	name   string
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_CHOWN, "CAP_CHOWN"},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"}, {unix.CAP_FOWNER, "CAP_FOWNER"}, {unix.CAP_SETUID, "CAP_SETUID"},
	{unix.CAP_SETGID, "CAP_SETGID"}, {unix.CAP_KILL, "CAP_KILL"},
}

func (m machine) privileges(_ context.Context, report func(Result)) error {
	r := reporter(report)
	if m.rootless {
		r.ok("", "user %d, without root", os.Geteuid())
		return nil
	}
	status, err := m.text("proc/self/status")
	if err != nil {
		return err
	}
	var caps uint64
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if caps, err = strconv.ParseUint(strings.TrimSpace(v), 16, 64); err != nil {
				return err
			}
		}
	}
	var missing []string
	for _, c := range needed {
		if caps&(1<<c.number) == 0 {
			missing = append(missing, c.name)
		}
	}
	switch {
	case len(missing) > 0:
		r.fail("", "give them to what starts v6node (in its systemd unit: CapabilityBoundingSet=)", "root without %s", strings.Join(missing, ", "))
	case caps&(1<<unix.CAP_SYS_RESOURCE) == 0:
		r.warn("", "give it to what starts v6node, or leave limits.oom_score_adj and limits.ulimits as they are",
			"root without CAP_SYS_RESOURCE: a run cannot have an oom_score_adj below, or ulimits above, the node's own")
	default:
		r.ok("", "root")
	}
	return nil
}

// kinds of namespaces that a sandbox is made of.
var kinds = []struct {
	file, sysctl string
	flag         uintptr
}{
	{"user", "user", syscall.CLONE_NEWUSER}, {"mnt", "mnt", syscall.CLONE_NEWNS}, {"net", "net", syscall.CLONE_NEWNET},
	{"pid", "pid", syscall.CLONE_NEWPID}, {"ipc", "ipc", syscall.CLONE_NEWIPC}, {"uts", "uts", syscall.CLONE_NEWUTS},
}

func (m machine) namespaces(ctx context.Context, report func(Result)) error {
	r := reporter(report)
	var flags uintptr
	var names []string
	bad := false
	for _, k := range kinds {
		if k.file == "user" && !m.rootless {
			continue
		}
		sysctl := "user.max_" + k.sysctl + "_namespaces"
		n, known := m.number("proc/sys/" + strings.ReplaceAll(sysctl, ".", "/"))
		switch {
		case !m.has("proc/self/ns/" + k.file):
			r.fail("", "boot a kernel with namespaces of every kind", "the kernel has no %s namespaces", k.file)
			bad = true
		case known && n == 0:
			r.fail("", sysctlFix(sysctl, 10000), "the kernel makes no %s namespaces: %s is 0", k.file, sysctl)
			bad = true
		}
		flags |= k.flag
		names = append(names, k.file)
	}
	if m.rootless {
		if n, known := m.number("proc/sys/kernel/unprivileged_userns_clone"); known && n == 0 {
			r.fail("", sysctlFix("kernel.unprivileged_userns_clone", 1), "user namespaces are for root only on this machine")
			bad = true
		}
	}
	if bad {
		return nil
	}
	if err := tryNamespaces(ctx, flags); err != nil {
		fix := "look for what forbids it: a seccomp filter or an AppArmor profile of what started v6node"
		if n, known := m.number("proc/sys/kernel/apparmor_restrict_unprivileged_userns"); known && n != 0 && m.rootless {
			fix = "write the AppArmor profile that docs/rootless.md shows, or run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root"
		}
		r.fail("", fix, "%s namespaces cannot be made: %v", strings.Join(names, ", "), err)
		return nil
	}
	r.ok("", "%s", strings.Join(names, ", "))
	return nil
}

// tryNamespaces starts a program in new namespaces.
func tryNamespaces(ctx context.Context, flags uintptr) error {
	program, err := exec.LookPath("true")
	if err != nil {
		return nil // nothing to try it with
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr = inUserNamespace(flags)
	}
	return cmd.Run()
}

// inUserNamespace makes this user root of new namespaces.
func inUserNamespace(flags uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  flags | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
}

func (m machine) seccomp(_ context.Context, report func(Result)) error {
	if !m.has("proc/sys/kernel/seccomp/actions_avail") {
		reporter(report).fail("", "boot a kernel with CONFIG_SECCOMP_FILTER", "the kernel does not filter system calls, and the node starts no algorithm without a filter")
		return nil
	}
	reporter(report).ok("", "the kernel filters system calls")
	return nil
}

func (m machine) appArmor(_ context.Context, report func(Result)) error {
	r := reporter(report)
	enabled, err := m.text("sys/module/apparmor/parameters/enabled")
	switch {
	case err != nil || enabled != "Y":
		r.skip("", "not in use on this machine; algorithms are confined without it")
	case m.rootless:
		r.skip("", "loading a profile takes root; algorithms are confined without it")
	case !m.has("sbin/apparmor_parser"):
		r.warn("", "apt-get install apparmor", "the kernel has it, but apparmor_parser, by which runtimes load their profile, is missing: algorithms run without a profile")
	default:
		r.ok("", "the runtime's default profile is used")
	}
	return nil
}

// settings are those of the kernel that many containers run into.
var settings = []struct {
	name  string
	least int64
	why   string
	users bool // bounds a user, and root not
}{
	{"fs.inotify.max_user_instances", 128, "runtimes and algorithms watch files with one each", false},
	{"fs.inotify.max_user_watches", 8192, "runtimes and algorithms watch files", false},
	{"kernel.pid_max", 32768, "the processes of all runs need one each", false},
	{"kernel.threads-max", 16384, "the threads of all runs count", false},
	{"fs.file-max", 65536, "the open files of all runs count", false},
	{"kernel.keys.maxkeys", 1000, "runc makes a keyring for each container of a user", true},
	{"kernel.keys.root_maxkeys", 1000, "runc makes a keyring for each container", false},
}

func (m machine) settings(_ context.Context, report func(Result)) error {
	r := reporter(report)
	low := false
	for _, s := range settings {
		n, known := m.number("proc/sys/" + strings.ReplaceAll(s.name, ".", "/"))
		if !known || n >= s.least || s.users && !m.rootless {
			continue
		}
		low = true
		r.warn("", sysctlFix(s.name, s.least), "%s is %d: %s", s.name, n, s.why)
	}
	if !low {
		r.ok("", "inotify, pid_max, threads-max, file-max and keys are roomy enough")
	}
	return nil
}

// sysctlFix is how an administrator changes a setting for now and for good.
func sysctlFix(name string, value int64) string {
	return fmt.Sprintf("as root, run `sysctl -w %s=%d`, and write %s = %d to a file in /etc/sysctl.d", name, value, name, value)
}

// leastOpenFiles is what a node with a hundred runs gets by on: sockets and logs
// of each.
const leastOpenFiles = 4096

func openFiles(_ context.Context, report func(Result)) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Max < leastOpenFiles {
		reporter(report).warn("", "set LimitNOFILE=65536 in the systemd unit, or `ulimit -Hn 65536` where v6node is started", "a process may open %d files, which many runs at a time can exceed", l.Max)
		return nil
	}
	reporter(report).ok("", "%d", l.Max)
	return nil
}
