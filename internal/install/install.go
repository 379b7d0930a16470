package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// What was done to a file.
const (
	Installed = "installed" // it was not there
	Renewed   = "renewed"   // its content or mode was another
	Unchanged = "unchanged" // it was as it should be
	Removed   = "removed"   // it is no longer there
	Kept      = "kept"      // it belongs to the administrator
)

// File is one file or directory of a report, by its path without DestDir.
type File struct {
	Path  string `json:"path"`
	State string `json:"state"`
}

// Report is what Install or Uninstall has done.
type Report struct {
	Prefix string `json:"prefix"`
	// Before is the version that was installed, "" for none; Version is the
	// one that is installed now.
	Before  string `json:"before"`
	Version string `json:"version"`
	Changed bool   `json:"changed"`
	Files   []File `json:"files"`
}

func (r *Report) add(path, state string) {
	r.Files = append(r.Files, File{path, state})
	r.Changed = r.Changed || state != Unchanged && state != Kept
}

// Install puts s where l says, over an older or newer version or beside a
// running node, whose state and runs it does not touch. What is already as it
// should be is left as it is, so that repeating Install does nothing. When it
// fails or is interrupted, every file is of either version and Uninstall finds
// all of them; repeating Install completes it.
func Install(ctx context.Context, l Layout, s Source) (_ Report, err error) {
	r := Report{Prefix: l.Prefix, Version: s.Version, Files: []File{}}
	if err := l.check(); err != nil {
		return r, err
	}
	items, err := l.items(s)
	if err != nil {
		return r, err
	}
	for _, i := range items { // before anything is changed
		f, err := i.open()
		if err != nil {
			return r, fmt.Errorf("install v6node: %w", err)
		}
		f.Close()
	}
	made, err := makeDirs(l.under(bundleDir))
	if err != nil {
		return r, fmt.Errorf("install v6node: %w", err)
	}
	unlock, err := l.lock()
	if err != nil {
		return r, fmt.Errorf("install v6node: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()

	old, err := l.readRecord()
	if err != nil {
		return r, err
	}
	now := &record{Version: s.Version}
	if old != nil {
		r.Before = old.Version
		now.Dirs = old.Dirs
	}
	for _, i := range items {
		now.Files = append(now.Files, i.rel)
		dirs, err := makeDirs(filepath.Dir(l.under(i.rel)))
		if err != nil {
			return r, fmt.Errorf("install v6node: %w", err)
		}
		made = append(made, dirs...)
	}
	for _, dir := range made {
		if rel, err := filepath.Rel(l.under("."), dir); err == nil && rel != "." && filepath.IsLocal(rel) {
			now.Dirs = append(now.Dirs, rel)
		}
	}
	if err := l.replace(ctx, items, old, now, &r); err != nil {
		return r, fmt.Errorf("install v6node: %w", err)
	}
	if !l.User {
		if err := os.MkdirAll(filepath.Dir(l.at(l.ConfigDir)), dirMode); err != nil {
			return r, fmt.Errorf("install v6node: %w", err)
		}
	} else if err := os.MkdirAll(filepath.Dir(l.at(l.ConfigDir)), privateMode); err != nil {
		return r, fmt.Errorf("install v6node: %w", err)
	}
	if err := os.Mkdir(l.at(l.ConfigDir), privateMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return r, fmt.Errorf("install v6node: %w", err)
	}
	return r, nil
}

// replace puts the items in their places, and takes away what only the old
// version had. The record names all files that there may be at any moment.
func (l Layout) replace(ctx context.Context, items []item, old, now *record, r *Report) error {
	var stale []string
	if old != nil {
		for _, rel := range old.Files {
			if !slices.Contains(now.Files, rel) {
				stale = append(stale, rel)
			}
		}
	}
	both := &record{Version: now.Version, Files: slices.Concat(now.Files, stale), Dirs: now.Dirs}
	if old == nil || !sameFiles(old, both) {
		if err := l.writeRecord(both); err != nil {
			return err
		}
	}
	for _, i := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		state, err := l.put(i)
		if err != nil {
			return err
		}
		r.add(filepath.Join(l.Prefix, i.rel), state)
	}
	for _, rel := range stale {
		if err := os.Remove(l.under(rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r.add(filepath.Join(l.Prefix, rel), Removed)
	}
	if len(stale) > 0 {
		return l.writeRecord(now)
	}
	return nil
}

func sameFiles(a, b *record) bool {
	slices.Sort(b.Files)
	slices.Sort(b.Dirs)
	return a.Version == b.Version && slices.Equal(a.Files, slices.Compact(b.Files)) && slices.Equal(a.Dirs, slices.Compact(b.Dirs))
}

// put installs one file unless it is already there.
func (l Layout) put(i item) (string, error) {
	path := l.under(i.rel)
	state := Renewed
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		state = Installed
	case err != nil:
		return "", err
	case info.IsDir():
		return "", fmt.Errorf("a directory is in the way: move %s away and install again", path)
	case info.Mode() == i.mode:
		same, err := i.equals(path)
		if err != nil {
			return "", err
		}
		if same {
			return Unchanged, nil
		}
	}
	f, err := i.open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	return state, replaceFile(path, f, i.mode)
}

// equals reports whether the file at path has the item's content.
func (i item) equals(path string) (bool, error) {
	want, err := i.open()
	if err != nil {
		return false, err
	}
	defer want.Close()
	have, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer have.Close()
	return sameContent(have, want)
}

func sameContent(a, b io.Reader) (bool, error) {
	left, right := make([]byte, 1<<18), make([]byte, 1<<18)
	for {
		n, errA := io.ReadFull(a, left)
		m, errB := io.ReadFull(b, right)
		if n != m || !slices.Equal(left[:n], right[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if errA != nil || errB != nil {
			return errA != nil && errB != nil, nil
		}
	}
}
