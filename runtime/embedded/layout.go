package embedded

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/moby/sys/mountinfo"

	"github.com/v6node/v6node/internal/userns"
)

// maxShimDir is the longest directory that containerd accepts for the shims'
// sockets: 107 usable bytes of a socket's path, less a slash and the 64 hex
// digits of the socket's name.
const maxShimDir = 107 - 1 - 64

// layout is where the parts of one embedded containerd are kept.
type layout struct {
	root       string // containerd's persistent data
	rootLock   string
	state      string // containerd's transient data, see reachable
	stateLock  string
	runc       string // runc's state
	config     string // config.toml
	handlers   string // OCI configurations of runtime handlers
	record     string // what was started, see record.go
	log        string
	cniConf    string
	cniBin     string
	cniCache   string // for a user namespace
	certs      string // registry host configuration, for the administrator to fill
	registries string // that, and the machine's, see linkRegistries
	sockets    string // State, or a short directory where that is too long
	socket     string // gRPC: CRI and containerd's own API
	ttrpc      string
	shimSocks  string
	differ     string // where the node unpacks layers, see differ.go
	// groupedRunc is the name for v6node-runc by which it leaves control groups
	// alone.
	groupedRunc string
	shortPath   bool
	reachable   bool // whether state is one
	configTemp  string
}

// newLayout decides on all paths and creates none.
func newLayout(root, state string) (*layout, error) {
	l := &layout{
		root:       filepath.Join(root, "containerd"),
		rootLock:   filepath.Join(root, "lock"),
		state:      filepath.Join(state, "containerd"),
		stateLock:  filepath.Join(state, "lock"),
		runc:       filepath.Join(state, "runc"),
		config:     filepath.Join(state, "config.toml"),
		handlers:   filepath.Join(state, "handlers"),
		record:     filepath.Join(state, "containerd.json"),
		log:        filepath.Join(state, "containerd.log"),
		cniConf:    filepath.Join(state, "cni", "conf"),
		cniBin:     filepath.Join(state, "cni", "bin"),
		cniCache:   filepath.Join(state, "cni", "cache"),
		certs:      filepath.Join(root, "certs.d"),
		registries: filepath.Join(state, "registries"),
		sockets:    state,
		configTemp: filepath.Join(state, "config.toml.new"),
	}
	if len(filepath.Join(state, "s")) > maxShimDir {
		l.sockets, l.shortPath = shortDir(state), true
		if n := len(filepath.Join(l.sockets, "s")); n > maxShimDir {
			return nil, fmt.Errorf("no directory is short enough for the sockets of containerd's shims (%s/s has %d bytes, %d are possible): choose a state directory of at most %d bytes",
				l.sockets, n, maxShimDir, maxShimDir-2)
		}
	}
	if userns.MachineRoot() {
		// The root of a sandbox in a user namespace of its own is nobody to this
		// machine, and has to find its root file system. All of the state
		// directory could not be made passable for that, nor what is above it.
		l.state, l.reachable = shortDir(state)+"-containerd", true
	}
	l.socket = filepath.Join(l.sockets, "containerd.sock")
	l.differ = filepath.Join(l.sockets, "differ.sock")
	l.groupedRunc = filepath.Join(state, "runc-with-groups")
	l.ttrpc = l.socket + ".ttrpc"
	l.shimSocks = filepath.Join(l.sockets, "s")
	return l, nil
}

// shortDir names the directory that holds the sockets of a state directory
// with a long name: always the same one for the same state directory. Without
// root it is where the user's sockets are, or else for temporary files, unless
// that is long again.
func shortDir(state string) string {
	sum := sha256.Sum256([]byte(state))
	name := fmt.Sprintf("v6node-%x", sum[:6])
	if userns.MachineRoot() {
		return filepath.Join("/run", name)
	}
	for _, base := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir()} {
		if dir := filepath.Join(base, name); filepath.IsAbs(base) && len(filepath.Join(dir, "s")) <= maxShimDir {
			return dir
		}
	}
	return filepath.Join("/tmp", name)
}

// create makes the directories, private to this user.
func (l *layout) create() error {
	dirs := []string{filepath.Dir(l.rootLock), filepath.Dir(l.stateLock), l.root, l.runc,
		filepath.Dir(l.cniConf), l.cniConf, l.cniBin, l.certs, l.registries, l.handlers, l.sockets, l.shimSocks}
	for _, dir := range dirs {
		if err := privateDir(dir); err != nil {
			return err
		}
	}
	return l.createState()
}

// createState makes the directory of containerd's transient data. Others may
// pass through a reachable one, and list nothing; everything in it has a mode of
// its own, and containerd keeps each sandbox's directory to that sandbox's root.
func (l *layout) createState() error {
	if err := privateDir(l.state); err != nil || !l.reachable {
		return err
	}
	return os.Chmod(l.state, 0o711)
}

// privateDir creates dir with mode 0700, or makes sure that an existing one
// belongs to this user and that nobody else can write to it: the short
// directory can lie in a world-writable place, where another user could have
// put something first.
func privateDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !fi.IsDir() || !ok || int(st.Uid) != os.Geteuid() || fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s (%v) is not a directory that belongs to user %d alone: remove it or choose another directory",
			dir, fi.Mode(), os.Geteuid())
	}
	return nil
}

// removeTransient deletes what only makes sense while a containerd runs. The
// log stays for the administrator.
func (l *layout) removeTransient() error {
	var errs []error
	for _, p := range []string{l.socket, l.ttrpc, l.record} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if living, err := l.shims(); err == nil && len(living) == 0 {
		// What a shim that was killed has left.
		errs = append(errs, os.RemoveAll(l.shimSocks))
	}
	if l.shortPath {
		// Only ever empty directories: a socket left in one belongs to a shim.
		for _, p := range []string{l.shimSocks, l.sockets} {
			if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	if l.reachable {
		errs = append(errs, removeUnmounted(l.state))
	}
	return errors.Join(errs...)
}

// removeUnmounted removes a directory and all that is in it, unless something is
// mounted there.
func removeUnmounted(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("look for mounts in %s: %w", dir, err)
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s stays, because %s is mounted in it", dir, mounts[0].Mountpoint)
	}
	return os.RemoveAll(dir)
}
