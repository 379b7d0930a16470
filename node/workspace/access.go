package workspace

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckAccess refuses (ErrDatabase) a run whose databases its algorithm could
// certainly not open. The algorithm has no capability, so that user 0 is bound by
// a file's permissions like any other. Which groups it is in only the image
// knows: what its group may read is left to the algorithm.
func (w *Run) CheckAccess(uid int64) error {
	for _, src := range w.sources {
		if src.mount == nil {
			continue
		}
		path := src.mount.Host
		info, err := os.Stat(path)
		if err != nil {
			return unreadable(src.db.Label, path, err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !mayOpen(info.Mode(), int64(st.Uid), uid) {
			return fmt.Errorf("%w %q: %s cannot be read by user %d, as which this image's algorithm runs (owner %d, mode %04o): change the file's owner or permissions, for a file that all may read is safe in a folder that only root may enter",
				ErrDatabase, src.db.Label, path, uid, st.Uid, info.Mode().Perm())
		}
	}
	return nil
}

// mayOpen tells whether a file or folder may be opened for reading by a user who
// may be in its group.
func mayOpen(mode fs.FileMode, owner, uid int64) bool {
	need := fs.FileMode(0o4)
	if mode.IsDir() {
		need = 0o5
	}
	if owner == uid {
		return mode>>6&need == need
	}
	return mode>>3&need == need || mode&need == need
}
