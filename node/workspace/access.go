package workspace

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/userns"
)

// CheckAccess refuses (ErrDatabase) a run whose databases its algorithm could
// certainly not open. The algorithm has no capability, so that user 0 is bound by
// a file's permissions like any other. Which groups it is in only the image
// knows: what its group may read is left to the algorithm. In a user namespace
// without root, user 0 is the user who runs the node, and the machine's other
// users and groups nobody can be.
func (w *Run) CheckAccess(uid int64) error {
	stranger := userns.Stranger()
	for _, src := range w.sources {
		if src.mount == nil {
			continue
		}
		path := src.mount.Host
		if src.from != "" {
			path = src.from // who may not read that, may not read a copy
		}
		info, err := os.Stat(path)
		if err != nil {
			return unreadable(src.db.Label, path, err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		writing := src.from == "" && !src.mount.ReadOnly
		if !ok || mayOpen(access{mode: info.Mode(), owner: int64(st.Uid), group: int64(st.Gid), listed: hasACL(path), writing: writing}, uid, stranger) {
			continue
		}
		what := "read"
		if writing {
			what = "read and written"
		}
		return fmt.Errorf("%w %q: %s cannot be %s by %s, as which this image's algorithm runs (%s, mode %04o): change the file's owner or permissions, for a file that all may read is safe in a folder that only its owner may enter",
			ErrDatabase, src.db.Label, path, what, describeUser(uid, stranger), describeOwner(int64(st.Uid), stranger), info.Mode().Perm())
	}
	return nil
}

func describeUser(uid, stranger int64) string {
	if host, ok := userns.OnHost(uid); ok && stranger >= 0 {
		return fmt.Sprintf("user %d, which is user %d of this machine", uid, host)
	}
	return fmt.Sprintf("user %d", uid)
}

func describeOwner(uid, stranger int64) string {
	if uid == stranger {
		return "owner: another user of this machine"
	}
	return fmt.Sprintf("owner %d", uid)
}

// access is what a file says about who may read it.
type access struct {
	mode         fs.FileMode
	owner, group int64
	listed       bool // it has a list of further users (acl(5))
	writing      bool // it is to be written too
}

// mayOpen tells whether a file or folder may be opened by a user who
// may be in its group, but cannot be the stranger nor in the stranger's group.
func mayOpen(a access, uid, stranger int64) bool {
	need := fs.FileMode(0o4)
	if a.mode.IsDir() {
		need = 0o5
	}
	if a.writing {
		need |= 0o2
	}
	if a.owner == uid && uid != stranger {
		return a.mode>>6&need == need
	}
	// With a list, the group's bits are the most that anybody on it has.
	member := a.group != stranger || a.listed
	return member && a.mode>>3&need == need || a.mode&need == need
}

func hasACL(path string) bool {
	n, err := unix.Getxattr(path, "system.posix_acl_access", nil)
	return err == nil && n > 0
}
