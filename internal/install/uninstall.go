package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Uninstall removes what Install has written, the directories that were made
// for it, and the links that start a node with the machine. The nodes' states
// and configurations are kept unless purge is set. It is no error if nothing is
// there. It refuses with ErrInUse, before anything is changed, while a process
// runs one of the programs: algorithms would go on with nobody to look after
// them; and with ErrMounted to purge a directory in which something is mounted.
func Uninstall(ctx context.Context, l Layout, purge bool) (_ Report, err error) {
	r := Report{Prefix: l.Prefix, Files: []File{}}
	if err := l.check(); err != nil {
		return r, err
	}
	old, err := l.readRecord()
	if err != nil {
		return r, err
	}
	if old != nil {
		r.Before = old.Version
		unlock, err := l.lock()
		if err != nil {
			return r, fmt.Errorf("uninstall v6node: %w", err)
		}
		defer func() { err = errors.Join(err, unlock()) }()
		if err := l.unused(old); err != nil {
			return r, fmt.Errorf("uninstall v6node: %w", err)
		}
	}
	if purge {
		if err := unmounted(l.at(l.StateDir), l.at(l.ConfigDir)); err != nil {
			return r, fmt.Errorf("uninstall v6node: %w", err)
		}
		if err := l.purge(ctx, &r); err != nil {
			return r, fmt.Errorf("remove the nodes' states and configurations: %w", err)
		}
	}
	if old != nil {
		if err := l.remove(old, &r); err != nil {
			return r, fmt.Errorf("uninstall v6node: %w", err)
		}
	}
	for _, dir := range []string{l.StateDir, l.ConfigDir} {
		if err := removeEmpty(l.at(dir)); err != nil {
			return r, err
		}
		if _, err := os.Lstat(l.at(dir)); err == nil {
			r.add(dir, Kept)
		}
	}
	return r, nil
}

// remove takes away the files of a record, the record last: until then it can be
// done again.
func (l Layout) remove(old *record, r *Report) error {
	links, err := l.enabled()
	if err != nil {
		return err
	}
	for _, link := range links {
		if err := os.Remove(l.at(link)); err != nil {
			return err
		}
		r.add(link, Removed)
	}
	for _, rel := range old.Files {
		err := os.Remove(l.under(rel))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.add(filepath.Join(l.Prefix, rel), Removed)
	}
	if err := os.Remove(l.under(recordFile)); err != nil {
		return err
	}
	dirs := slices.Clone(old.Dirs)
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) }) // the inner ones first
	for _, rel := range dirs {
		if err := removeEmpty(l.under(rel)); err != nil {
			return err
		}
	}
	return nil
}

// enabled are the links by which systemd starts nodes.
func (l Layout) enabled() ([]string, error) {
	unit := filepath.Base(l.unit())
	name, suffix, _ := strings.Cut(unit, ".")
	found, err := filepath.Glob(filepath.Join(l.at(l.EnabledDir), "*.wants", name+"*."+suffix))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, path := range found {
		if target, err := os.Readlink(path); err == nil && filepath.Base(target) == unit {
			out = append(out, filepath.Join("/", strings.TrimPrefix(path, l.DestDir)))
		}
	}
	return out, nil
}

func removeEmpty(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// purge removes states and configurations.
func (l Layout) purge(ctx context.Context, r *Report) error {
	for _, dir := range []string{l.StateDir, l.ConfigDir} {
		path := l.at(dir)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		err := os.RemoveAll(path)
		if errors.Is(err, unix.EBUSY) {
			err = nil // a file system of its own: it is empty now
		}
		if l.User && errors.Is(err, fs.ErrPermission) {
			err = l.removeMapped(ctx, path)
		}
		if err != nil {
			return err
		}
		r.add(dir, Removed)
	}
	return nil
}

// removeMapped removes what subordinate users own: to the user whose they are
// that is possible only in a user namespace.
func (l Layout) removeMapped(ctx context.Context, path string) error {
	kit := l.under(filepath.Join(bundleDir, "rootlesskit"))
	if out, err := exec.CommandContext(ctx, kit, "rm", "-rf", "--", path).CombinedOutput(); err != nil {
		return fmt.Errorf("remove %s in a user namespace: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	return nil
}
