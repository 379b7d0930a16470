package runtime

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// IDMapSize is the number of users and of groups in a sandbox's user namespace,
// the one that every runtime takes.
const IDMapSize = 1 << 16

// IDMap gives a sandbox a user namespace of its own: its users and groups 0 to
// IDMapSize-1 are the users and groups First to First+IDMapSize-1 of this
// machine, which should belong to nobody. In what is mounted, files keep the
// owners that they have on this machine: the mounts are mapped the other way.
// The zero value of *IDMap, nil, is the machine's own user namespace.
type IDMap struct{ First uint32 }

// String is what ParseIDMap reads: FIRST:SIZE.
func (m *IDMap) String() string {
	return strconv.FormatUint(uint64(m.First), 10) + ":" + strconv.Itoa(IDMapSize)
}

// ParseIDMap reads what String writes.
func ParseIDMap(text string) (*IDMap, error) {
	first, size, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(first, 10, 32)
	if err != nil || size != strconv.Itoa(IDMapSize) {
		return nil, fmt.Errorf("%q is not a range of ids such as 1879048192:%d", text, IDMapSize)
	}
	return &IDMap{uint32(n)}, nil
}

func (m *IDMap) mappings() []*cri.IDMapping {
	if m == nil {
		return nil
	}
	return []*cri.IDMapping{{HostId: m.First, Length: IDMapSize}}
}

// options are those of the sandbox and of its containers, which must be equal.
func (m *IDMap) options() *cri.UserNamespace {
	if m == nil {
		return nil // containerd 1.6 does not know the field
	}
	return &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: m.mappings(), Gids: m.mappings()}
}

// ErrNotMappable: a file or directory is on a file system whose mounts cannot be
// mapped into a user namespace.
var ErrNotMappable = errors.New("mounts of this file system cannot be mapped into a user namespace")

// MapProbe tells which file systems can be mounted into a user namespace.
type MapProbe struct{ namespace *os.File }

// NewMapProbe makes the user namespace to try with.
func NewMapProbe() (_ *MapProbe, err error) {
	// The tracer of the child is a thread, so it must be this one until the end.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	ids := []syscall.SysProcIDMap{{HostID: 1, Size: 1}}
	// Traced, the child stops before the first instruction of its program.
	child, err := os.StartProcess("/proc/self/exe", []string{"v6node"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
	err = errors.Join(err, child.Kill())
	_, waitErr := child.Wait()
	if err = errors.Join(err, waitErr); err != nil {
		if f != nil {
			_ = f.Close()
		}
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return &MapProbe{f}, nil
}

// Close lets the namespace go.
func (p *MapProbe) Close() error { return p.namespace.Close() }

// Try returns ErrNotMappable where a mount of the path could not be mapped. It
// mounts nothing.
func (p *MapProbe) Try(path string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open %s as a mount: %w", path, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(p.namespace.Fd())}
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr)
	if closeErr := unix.Close(tree); err == nil {
		err = closeErr
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%s: %w", path, ErrNotMappable)
	}
	if err != nil {
		return fmt.Errorf("map a mount of %s: %w", path, err)
	}
	return nil
}
