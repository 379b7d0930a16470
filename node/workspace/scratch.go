package workspace

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountMemory mounts a tmpfs with a size limit, 0 for none, whose pages are
// charged to the run that writes them.
func mountMemory(path string, size int64, flags uintptr) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("mode=1777,size=%d", size)
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|flags, options); err != nil {
		return fmt.Errorf("mount a tmpfs of %d bytes on %s: %w", size, path, err)
	}
	return nil
}

// unmountMemory is idempotent. Lazily, because a container that is being killed
// may hold it for a moment longer; the pages go with the last user.
func unmountMemory(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // no mount there
	}
	return err
}
