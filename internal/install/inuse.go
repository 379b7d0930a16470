package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// The reasons for which Uninstall leaves everything as it is.
var (
	// ErrInUse: a node, its containerd or an algorithm's shim runs.
	ErrInUse = errors.New("v6node is in use")
	// ErrMounted: what is mounted in a directory would be removed with it,
	// which may be a database.
	ErrMounted = errors.New("something is mounted there")
)

// mostProcesses bounds how many processes a message names.
const mostProcesses = 5

// unused makes sure that no process but this one was started from the
// installation, as far as this user may see.
func (l Layout) unused(r *record) error {
	ours := map[string]bool{}
	for _, rel := range r.Files {
		path := l.under(rel)
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		ours[path] = true
	}
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	var found []string
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil {
			continue // it has ended, has no program, or is somebody else's
		}
		pid := filepath.Base(filepath.Dir(link))
		exe = strings.TrimSuffix(exe, " (deleted)") // it was started from an older version
		if ours[exe] && pid != strconv.Itoa(os.Getpid()) {
			found = append(found, fmt.Sprintf("%s (%s)", pid, filepath.Base(exe)))
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	named := strings.Join(found[:min(len(found), mostProcesses)], ", ")
	if len(found) > mostProcesses {
		named += fmt.Sprintf(" and %d more", len(found)-mostProcesses)
	}
	stop := "systemctl stop 'v6node@*'"
	if l.User {
		stop = "systemctl --user stop v6node"
	}
	return fmt.Errorf("%w by the processes %s: let the running algorithms end with `v6node pause --wait`, and stop each node (%s)", ErrInUse, named, stop)
}

// unmounted makes sure that nothing is mounted in the directories.
func unmounted(dirs ...string) error {
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			return fmt.Errorf("look for mounts in %s: %w", dir, err)
		}
		for _, m := range mounts {
			if m.Mountpoint != dir { // a file system of its own is the administrator's choice
				return fmt.Errorf("%w: %s: unmount it first", ErrMounted, m.Mountpoint)
			}
		}
	}
	return nil
}
