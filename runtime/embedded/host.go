package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/userns"
)

// ErrPrivileges is returned by Start when this process may not mount
// filesystems, without which no container starts.
var ErrPrivileges = errors.New("not enough privileges")

// host is what the configuration depends on. It is found by looking and
// trying, never by guessing from a distribution's name.
type host struct {
	overlay        bool // else the native snapshotter, which copies
	volatile       bool // overlay mounts can go without syncing
	userNamespace  bool
	oneID          bool // nobody but one user is in it
	oomAdjustable  bool // oom_score_adj can be lowered
	appArmor       bool
	systemdCgroups bool // systemd manages a unified hierarchy
}

// probeHost looks at the machine, and tries overlay mounts below dir, since
// whether they work depends on the filesystem there.
func probeHost(dir string) (host, error) {
	const capSysAdmin, capSysResource = 21, 24
	caps, err := effectiveCaps("/proc/self/status")
	if err != nil {
		return host{}, err
	}
	if caps&(1<<capSysAdmin) == 0 {
		return host{}, fmt.Errorf("the embedded containerd cannot mount filesystems: %w; run v6node as root or in a user namespace (rootless)", ErrPrivileges)
	}
	h := host{userNamespace: userns.Inside(), oneID: userns.OneID()}
	h.oomAdjustable = caps&(1<<capSysResource) != 0 && !h.userNamespace
	// A profile is loaded into the machine's kernel, which takes real root.
	h.appArmor = !h.userNamespace && appArmorUsable("/sys")
	h.systemdCgroups = !h.userNamespace && unifiedCgroups("/sys/fs/cgroup") && isDir("/run/systemd/system")
	if h.overlay = tryOverlay(dir, h.userNamespace, false) == nil; h.overlay {
		h.volatile = tryOverlay(dir, h.userNamespace, true) == nil
	}
	return h, nil
}

func (h host) log(ctx context.Context, l *slog.Logger) {
	l.LogAttrs(ctx, slog.LevelDebug, "host probed for the embedded containerd",
		slog.Bool("overlay", h.overlay), slog.Bool("volatile", h.volatile),
		slog.Bool("user_namespace", h.userNamespace), slog.Bool("one_id", h.oneID), slog.Bool("oom_adjustable", h.oomAdjustable),
		slog.Bool("apparmor", h.appArmor), slog.Bool("systemd_cgroups", h.systemdCgroups))
	if !h.overlay {
		l.WarnContext(ctx, "overlayfs does not work here, containers' filesystems will be copied: use ext4 or xfs for the root directory")
	}
}

func effectiveCaps(status string) (uint64, error) {
	f, err := os.Open(status)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("%s does not name the effective capabilities", status), lines.Err())
}

// appArmorUsable asks for the kernel's part and for the parser with which
// containerd loads its profile.
func appArmorUsable(sys string) bool {
	enabled, err := os.ReadFile(filepath.Join(sys, "module/apparmor/parameters/enabled"))
	if err != nil || !strings.HasPrefix(string(enabled), "Y") || !isDir(filepath.Join(sys, "kernel/security/apparmor")) {
		return false
	}
	_, err = os.Stat("/sbin/apparmor_parser")
	return err == nil
}

func unifiedCgroups(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// tryOverlay mounts an overlay in a scratch directory and writes through it.
func tryOverlay(dir string, userNamespace, volatile bool) (err error) {
	tmp, err := os.MkdirTemp(dir, ".overlay-probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o700); err != nil {
			return err
		}
	}
	at := func(name string) string { return escapeOverlay(filepath.Join(tmp, name)) }
	options := "lowerdir=" + at("lower") + ",upperdir=" + at("upper") + ",workdir=" + at("work")
	if userNamespace {
		options += ",userxattr"
	}
	if volatile {
		options += ",volatile"
	}
	merged := filepath.Join(tmp, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	err = os.WriteFile(filepath.Join(merged, "file"), nil, 0o600)
	return errors.Join(err, unix.Unmount(merged, 0))
}

// escapeOverlay protects the characters that separate mount options.
func escapeOverlay(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(path)
}
