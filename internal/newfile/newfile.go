// Package newfile writes files so that they last: whole or not at all.
package newfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes a file of mode 0600 with its directories (0700), so that at no moment a part of it, or a file that others
// may read, has its name. What has the name already stays as it is, and the error wraps fs.ErrExist; with replace a
// file or a link gives way to the new one.
func Write(path string, data []byte, replace bool) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && (info.IsDir() || !replace) {
		return exists(path)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gone(f.Name())) }()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if replace {
		err = os.Rename(f.Name(), path)
	} else if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return exists(path) // somebody was faster
	}
	if err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes what was renamed, linked or removed in a directory last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func exists(path string) error {
	return fmt.Errorf("%s exists already and stays as it is: %w", path, fs.ErrExist)
}

// gone removes what is left of the making.
func gone(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
