package check

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/runtime"
)

// Room that a node needs on its file systems.
const (
	tightBytes, scarceBytes   = 10 << 30, 1 << 30
	tightInodes, scarceInodes = 100_000, 5_000
)

// networked and volatile are file systems by their magic numbers (statfs(2)).
var (
	networked = map[int64]string{
		unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", 0xff534d42: "CIFS", 0xfe534d42: "SMB2",
		0x0bd00bd0: "Lustre", 0x47504653: "GPFS", 0x19830326: "BeeGFS", unix.CEPH_SUPER_MAGIC: "CephFS", unix.AFS_SUPER_MAGIC: "AFS",
	}
	volatile = map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs"}
)

// storage looks at the directories that the node writes to.
func (o Options) storage(_ context.Context, report func(Result)) error {
	if err := directory(report, "state directory", o.Config.StateDir, "state_dir"); err != nil {
		return err
	}
	if o.Config.TaskDir == "" {
		return nil
	}
	if same, err := sameFileSystem(o.Config.StateDir, o.Config.TaskDir); err != nil || same {
		return err
	}
	return directory(report, "task directory", o.Config.TaskDir, "task_dir")
}

func directory(report func(Result), name, dir, key string) error {
	r := reporter(report)
	place, err := existing(dir)
	if err != nil {
		r.fail(name, "correct "+key, "%s cannot be used: %v", dir, err)
		return nil
	}
	if err := unix.Access(place, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		r.fail(name, fmt.Sprintf("run v6node as the owner of %s, or choose another directory as %s", place, key), "%s cannot be written to: %v", place, err)
		return nil
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o077 != 0 {
		r.warn(name, "chmod 700 "+dir, "%s may be entered by others (mode %04o), and inputs and results are in it", dir, info.Mode().Perm())
	}
	return space(report, name, place, fmt.Sprintf("make room (`v6node gc` removes what nothing needs), or choose another directory as %s", key))
}

// space looks at what is left of the file system that a directory is on.
func space(report func(Result), name, dir, fix string) error {
	r := reporter(report)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	left := fmt.Sprintf("%s has %s free", dir, units.FormatSize(free))
	switch {
	case free < scarceBytes:
		r.fail(name, fix, "%s, which is less than an image and its runs need", left)
	case free < tightBytes:
		r.warn(name, fix, "%s, which a few images fill", left)
	default:
		r.ok(name, "%s", left)
	}
	// Some file systems make inodes as they go, and tell none.
	if st.Files > 0 && st.Ffree < tightInodes {
		say := r.warn
		if st.Ffree < scarceInodes {
			say = r.fail
		}
		say(name+", inodes", fix, "%s has room for %d files, and an image has tens of thousands", dir, st.Ffree)
	}
	if kind, ok := networked[int64(st.Type)]; ok {
		r.warn(name+", kind", "choose a directory on a local file system", "%s is on %s: locks, overlayfs and owners of files do not work there as on a local one", dir, kind)
	}
	if kind, ok := volatile[int64(st.Type)]; ok {
		r.warn(name+", kind", "choose a directory on a disk", "%s is in memory (%s): the node forgets its runs with a restart of the machine", dir, kind)
	}
	return nil
}

// sameFileSystem compares those on which two directories are or will be.
func sameFileSystem(a, b string) (bool, error) {
	var dev [2]uint64
	for i, dir := range []string{a, b} {
		place, err := existing(dir)
		if err != nil {
			return false, nil // directory says it
		}
		var st unix.Stat_t
		if err := unix.Stat(place, &st); err != nil {
			return false, err
		}
		dev[i] = uint64(st.Dev)
	}
	return dev[0] == dev[1], nil
}

// imageStore looks at the room for images, where an existing runtime keeps them.
func (o Options) imageStore(ctx context.Context, report func(Result)) error {
	return o.ask(ctx, report, func(rt *runtime.Client) error {
		dirs, err := rt.ImageDirectories(ctx)
		if err != nil {
			return err
		}
		if len(dirs) == 0 {
			reporter(report).skip("", "the runtime does not tell where it keeps images")
		}
		for _, dir := range dirs {
			err := space(report, "image store", dir, "make room there (`crictl rmi --prune` removes images that no container uses)")
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				reporter(report).skip("image store", "%s is not to be seen from here", dir)
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
