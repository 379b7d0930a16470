package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cniCache is where containerd's CNI library keeps the results of the plugins.
// The path is built into it.
const cniCache = "/var/lib/cni"

// ownCNICache puts a directory of ours in the place of the CNI cache, in a mount
// namespace that is ours alone: in a user namespace the host's belongs to nobody
// that is mapped. It does nothing where it has been done.
func ownCNICache(dir string) error {
	if err := os.MkdirAll(cniCache, 0o700); err == nil && unix.Access(cniCache, unix.W_OK) == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(cniCache); errors.Is(err, fs.ErrNotExist) {
		// What is not there cannot be mounted on.
		if err := rebuild(filepath.Dir(cniCache), filepath.Base(cniCache)); err != nil {
			return fmt.Errorf("make %s in the user namespace: %w: as root, run `mkdir %[1]s`", cniCache, err)
		}
	}
	if err := unix.Mount(dir, cniCache, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("put %s in the place of %s: %w", dir, cniCache, err)
	}
	return nil
}

// rebuild mounts over dir a copy that has everything at the same path, and one
// more directory. Not by symbolic links to another path, as is usual: the paths
// in it that the node was given would not be the real ones any more. What is
// later added to the host's directory itself does not appear in the copy.
func rebuild(dir, more string) (err error) {
	parent, err := os.MkdirTemp("", "v6node-rebuild-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(parent)) }()
	// Held by a descriptor, the old one stays in reach under the new.
	old, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := unix.Mount("tmpfs", parent, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	moved := false
	defer func() {
		if !moved {
			err = errors.Join(err, unix.Unmount(parent, unix.MNT_DETACH))
		}
	}()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := again(fmt.Sprintf("/proc/self/fd/%d/%s", old, e.Name()), filepath.Join(parent, e.Name()), e); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(parent, more), 0o700); err != nil {
		return err
	}
	if err := unix.Mount(parent, dir, "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	moved = true
	return nil
}

// again makes an entry of a directory appear at another place.
func again(from, to string, e fs.DirEntry) error {
	switch {
	case e.Type() == fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case e.IsDir():
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(to, nil, 0o600); err != nil {
			return err
		}
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s again: %w", e.Name(), err)
	}
	return nil
}
