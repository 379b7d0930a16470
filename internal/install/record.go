package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// recordFile is below the prefix.
const recordFile = bundleDir + "/.installed.json"

// record is what an installation consists of.
type record struct {
	Version string `json:"version"`
	// Files and Dirs are below the prefix; the directories are those that
	// were made for it.
	Files []string `json:"files"`
	Dirs  []string `json:"dirs"`
}

// readRecord returns nil where nothing is installed.
func (l Layout) readRecord() (*record, error) {
	path := l.under(recordFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is installed: %w", err)
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): remove it and install again", path, err)
	}
	for _, rel := range slices.Concat(r.Files, r.Dirs) {
		if !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("%s is damaged (it names %q): remove it and install again", path, rel)
		}
	}
	return &r, nil
}

func (l Layout) writeRecord(r *record) error {
	for _, list := range []*[]string{&r.Files, &r.Dirs} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(l.under(recordFile), bytes.NewReader(append(raw, '\n')), dataMode)
}

// ErrBusy: somebody else installs or uninstalls at this moment.
var ErrBusy = errors.New("another installation is at work in this directory: wait for its end")

// lock keeps others away from the installation until it is called.
func (l Layout) lock() (unlock func() error, err error) {
	f, err := os.Open(l.under(bundleDir))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", f.Name(), ErrBusy)
		}
		return nil, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return f.Close, nil
}
