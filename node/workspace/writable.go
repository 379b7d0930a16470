package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/copying"
)

const (
	// copiesName has the run's own copies of databases, for the container's mounts.
	copiesName = "copies"
	// foldersName lists the folders that the run may change, for Folders.
	foldersName = "folders"
)

// Folder is a database that a run may change.
type Folder struct {
	Label string `json:"label"`
	Path  string `json:"path"`
	Limit int64  `json:"limit"` // bytes on the disk
}

// Use measures what is in the folder, in bytes on the disk.
func (f Folder) Use() (int64, error) { return diskUse(f.Path, f.Limit) }

// Folders are those that the run may change; also after a restart of the node.
func (w *Run) Folders() ([]Folder, error) {
	b, err := os.ReadFile(w.path(foldersName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []Folder
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("read which folders run %d may change: %w", w.id, err)
	}
	return out, nil
}

// lendFolders notes the folders that the run may change, none of which may be
// full.
func (w *Run) lendFolders(sources []source) error {
	var all []Folder
	for _, s := range sources {
		if s.mount == nil || s.mount.ReadOnly || s.from != "" {
			continue
		}
		f := Folder{Label: s.db.Label, Path: s.mount.Host, Limit: s.db.SizeLimit}
		n, err := f.Use()
		if err != nil {
			return fmt.Errorf("%w %q: %w", ErrDatabase, f.Label, err)
		}
		if n >= f.Limit {
			return fmt.Errorf("%w %q: the folder has reached its size_limit: ask the node's administrator to make room in it", ErrDatabase, f.Label)
		}
		all = append(all, f)
	}
	if all == nil {
		return nil
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return writeFile(w.path(foldersName), b, 0o600)
}

// copyPrivate makes the run's own copies of the databases that are to have one.
func (w *Run) copyPrivate(ctx context.Context, sources []source) error {
	for i := range sources {
		s := &sources[i]
		if s.mount == nil || !s.db.Private {
			continue
		}
		info, err := os.Stat(s.mount.Host)
		if err != nil {
			return unreadable(s.db.Label, s.mount.Host, err)
		}
		if !info.Mode().IsRegular() {
			continue // a folder stays where it is
		}
		// A directory for each, since files of two may have one name.
		dir := filepath.Join(w.path(copiesName), strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		to := filepath.Join(dir, "file")
		if err := copyFile(ctx, s.mount.Host, to); err != nil {
			return fmt.Errorf("%w %q: the run's own copy of %s cannot be made: %w: make room on the disk of the node's task_dir, or remove mount_mode: copy to have the file mounted in place", ErrDatabase, s.db.Label, s.mount.Host, err)
		}
		s.from = s.mount.Host
		s.mount = &Mount{Host: to, Container: s.mount.Container}
	}
	return nil
}

// copyFile makes a copy that shares its blocks with the original where the file
// system can do that.
func copyFile(ctx context.Context, from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		if err := copying.Copy(ctx, out, in, nil); err != nil {
			return err
		}
	}
	// Whoever the algorithm's user is; nobody else comes as far as here.
	return out.Chmod(0o666)
}
