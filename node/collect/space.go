package collect

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// leastFree is what a file system is to have free by default, and
	// smallShare what a smaller one is: results and inputs of runs, layers that
	// are being unpacked and the ledger must always fit.
	leastFree  = 10 << 30
	smallShare = 10 // a tenth
	// inodeShare is which part of the inodes is to be free: a twentieth, as
	// other collectors keep free.
	inodeShare = 20
)

// DefaultFree is the MinFree that depends on the file system: 10 GiB, or a tenth
// of a smaller one than 100 GiB.
const DefaultFree = -1

// Space is how full a file system is. Inodes is 0 where it has no fixed number.
type Space struct {
	Device             uint64
	Total, Free        int64 // bytes, for the node's user
	Inodes, FreeInodes int64
	ReadOnly           bool
}

// SpaceOf asks for the file system that a path is on.
func SpaceOf(path string) (Space, error) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Space{}, fmt.Errorf("ask for the free space of %s: %w", path, err)
	}
	if err := unix.Stat(path, &st); err != nil {
		return Space{}, fmt.Errorf("look at %s: %w", path, err)
	}
	return Space{
		Device: st.Dev, Total: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize,
		Inodes: int64(fs.Files), FreeInodes: int64(fs.Ffree), ReadOnly: fs.Flags&unix.ST_RDONLY != 0,
	}, nil
}

// Lacks is what is missing of minFree bytes (0 asks for nothing), and whether
// inodes are.
func (s Space) Lacks(minFree int64) (bytes int64, inodes bool) {
	if minFree == 0 {
		return 0, false
	}
	if minFree == DefaultFree {
		minFree = min(leastFree, s.Total/smallShare)
	}
	return max(0, minFree-s.Free), s.Inodes > 0 && s.FreeInodes < s.Inodes/inodeShare
}
