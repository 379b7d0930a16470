package workspace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrTooDeep: directories are nested beyond what can be measured.
var ErrTooDeep = fmt.Errorf("directories are nested more than %d deep", maxDepth)

const (
	maxDepth = 64
	// leastEntry is what a file or directory counts at least, so that many
	// empty ones cannot fill the disk, nor measuring them take for ever.
	leastEntry = 4 << 10
)

// OutputUse measures what lies beside the run's output, the output included, and
// the run's own copies of databases, in bytes on the disk. It stops beyond limit, if
// that is not 0.
func (w *Run) OutputUse(limit int64) (int64, error) {
	n, err := diskUse(w.data(), limit)
	if err != nil || limit > 0 && n > limit {
		return n, err
	}
	more, err := diskUse(w.path(copiesName), 0) // as many files as the node made
	return n + more, err
}

// ScratchUse measures a job's /mnt/tmp, as OutputUse does.
func (w *Run) ScratchUse(jobID, limit int64) (int64, error) {
	return diskUse(w.root.job(jobID), limit)
}

// FreeSpace is what the run's file system has left for its user.
func (w *Run) FreeSpace() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(w.data(), &st); err != nil {
		return 0, fmt.Errorf("ask for the free space of run %d: %w", w.id, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// HeldUse measures the files on the run's file system that processes hold open
// and that have no name any more, so that OutputUse and ScratchUse do not see
// them. A process that has ended holds nothing.
func (w *Run) HeldUse(pids []int) (int64, error) { return heldUse(w.data(), pids) }

// HeldUse is that for the folder's file system.
func (f Folder) HeldUse(pids []int) (int64, error) { return heldUse(f.Path, pids) }

func heldUse(beside string, pids []int) (int64, error) {
	var home unix.Stat_t
	if err := unix.Stat(beside, &home); err != nil {
		return 0, fmt.Errorf("look at the file system of %s: %w", beside, err)
	}
	var sum int64
	seen := map[uint64]bool{}
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		names, err := readNames(dir)
		if err != nil {
			continue // it has ended
		}
		for _, name := range names {
			var st unix.Stat_t
			if unix.Stat(filepath.Join(dir, name), &st) != nil || st.Nlink > 0 || st.Dev != home.Dev || seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
	}
	return sum, nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

// diskUse adds up a directory that an algorithm may change at the same time: it
// follows no link and opens nothing but directories. A directory that is gone
// is empty.
func diskUse(dir string, limit int64) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	m := meter{limit: limit, seen: map[uint64]bool{}}
	if err := m.directory(fd, 0); err != nil {
		return m.sum, fmt.Errorf("measure %s: %w", dir, err)
	}
	return m.sum, nil
}

type meter struct {
	sum, limit int64
	seen       map[uint64]bool // files with several names
}

func (m *meter) full() bool { return m.limit > 0 && m.sum > m.limit }

// directory measures and closes an open directory.
func (m *meter) directory(fd, depth int) (err error) {
	f := os.NewFile(uintptr(fd), "directory")
	defer func() { err = errors.Join(err, f.Close()) }()
	if depth > maxDepth {
		return ErrTooDeep
	}
	for !m.full() {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if err := m.entry(fd, name, depth); err != nil {
				return err
			}
			if m.full() {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *meter) entry(dir int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return unlessMoved(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		if m.seen[st.Ino] {
			return nil
		}
		m.seen[st.Ino] = true
	}
	m.sum += max(st.Blocks*512, leastEntry)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return unlessMoved(err)
	}
	return m.directory(fd, depth+1)
}

// unlessMoved forgives what vanished or was replaced between two looks.
func unlessMoved(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}
