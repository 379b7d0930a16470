package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotDelegated means that this process may not make control groups with
// limits.
var ErrNotDelegated = errors.New("no control groups are delegated to this user")

// cgroupLeaf is where the processes of a delegated group of cgroup v2 go, which
// may not have processes of its own beside groups with limits.
const cgroupLeaf = "v6node-processes"

// Delegation is a control group that belongs to a user without root, who may
// make groups with limits below it.
type Delegation struct {
	// Base is its path below each hierarchy.
	Base string
	host *cgroupHost
}

// FindDelegation looks whether a process may make control groups below base, ""
// for the group that the process with the number pid is in. The error wraps
// ErrNotDelegated, and says what is missing and how to come by it.
func FindDelegation(base string, pid int) (*Delegation, error) {
	host, err := findCgroupHost()
	if err != nil {
		return nil, err
	}
	text, err := textValue(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, &Error{Op: "find the control group of this process", Cause: err}
	}
	d := &Delegation{Base: path.Clean(base), host: host}
	if base == "" {
		if d.Base, err = ownGroup(host.version, text); err != nil {
			return nil, notDelegated(err)
		}
	}
	if err := d.check(); err != nil {
		return nil, notDelegated(err)
	}
	return d, nil
}

func notDelegated(err error) error {
	return &Error{Op: "find control groups for the runs' limits", Kind: ErrNotDelegated, Cause: err, text: err.Error()}
}

// ownGroup reads proc_pid_cgroup(5): the group that is the same one for every
// controller.
func ownGroup(version int, text string) (string, error) {
	needed := v1Controllers
	if version == 2 {
		needed = []string{""}
	}
	found := ""
	for _, controller := range needed {
		rel := groupFor(text, controller)
		switch {
		case rel == "":
			return "", fmt.Errorf("this process is in no %s group", controller)
		case rel == "/":
			return "", fmt.Errorf("this process is in the topmost %s group, which is root's", controller)
		case found != "" && found != rel:
			return "", fmt.Errorf("this process is in the groups %s and %s, and not in the same one for %s", oneLine(found), oneLine(rel), strings.Join(needed, ", "))
		}
		found = rel
	}
	if version == 2 && path.Base(found) == cgroupLeaf {
		found = path.Dir(found)
	}
	return found, nil
}

// groupFor is the path in the line of a controller, "" for none.
func groupFor(text, controller string) string {
	for line := range strings.Lines(text) {
		// 4:cpu,cpuacct:/path, or 0::/path on v2.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && slices.Contains(strings.Split(fields[1], ","), controller) {
			return fields[2]
		}
	}
	return ""
}

// check looks at the rights on the group, without changing anything.
func (d *Delegation) check() error {
	if d.host.version == 2 {
		dir := filepath.Join(d.host.unified, d.Base)
		for _, file := range []string{dir, filepath.Join(dir, "cgroup.procs"), filepath.Join(dir, "cgroup.subtree_control")} {
			if err := writable(file); err != nil {
				return err
			}
		}
		have, err := textValue(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, want := range []string{"cpu", "memory", "pids"} {
			if !slices.Contains(strings.Fields(have), want) {
				return fmt.Errorf("%s has the controllers %q, and %s is not delegated", dir, have, want)
			}
		}
		return nil
	}
	for _, controller := range v1Controllers {
		root := d.host.controllers[controller]
		if root == "" {
			return fmt.Errorf("the kernel has no %s controller; enable it at boot", controller)
		}
	}
	// runc makes a group in each of them, also where nothing is limited.
	for _, root := range d.host.legacy {
		if err := writable(filepath.Join(root, d.Base)); err != nil {
			return err
		}
	}
	cpus := filepath.Join(d.host.controllers["cpuset"], d.Base, "cpuset.cpus")
	if text, err := textValue(cpus); err != nil || text == "" {
		return errors.Join(err, fmt.Errorf("%s is empty, so that no process can be in the group", cpus))
	}
	return nil
}

func writable(file string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write to", Path: file, Err: err}
	}
	return nil
}

// Settle makes the group ready for groups with limits below it. On cgroup v2 it
// moves this process there, and the processes of the group out of its way. It
// may be called again.
func (d *Delegation) Settle() error {
	if d.host.version != 2 {
		return nil
	}
	top := filepath.Join(d.host.unified, d.Base)
	leaf := filepath.Join(top, cgroupLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return notDelegated(err)
	}
	procs := filepath.Join(leaf, "cgroup.procs")
	if err := writeInt(procs, int64(os.Getpid())); err != nil {
		return notDelegated(fmt.Errorf("this process cannot go to %s, because it was started outside of what is delegated to the user: %w", leaf, err))
	}
	text, err := textValue(filepath.Join(top, "cgroup.procs"))
	if err != nil {
		return notDelegated(err)
	}
	for pid := range strings.FieldsSeq(text) {
		if err := writeValue(procs, pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return notDelegated(err)
		}
	}
	if err := enableControllers(top, "+cpu +memory +pids"); err != nil {
		return notDelegated(err)
	}
	return nil
}
