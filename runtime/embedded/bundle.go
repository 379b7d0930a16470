package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Names of the programs in a bundle directory.
const (
	containerdName = "containerd"
	shimName       = "containerd-shim-runc-v2"
	runcName       = "runc"
	pauseName      = "v6node-pause"
	kitName        = "rootlesskit"
	looseName      = "v6node-runc"
)

// ErrNoBundle is returned by FindBundle when no directory holds a whole bundle.
var ErrNoBundle = errors.New("the programs of the embedded containerd were not found")

// Bundle names the programs that an embedded containerd consists of, by
// absolute path.
type Bundle struct {
	Dir        string
	Containerd string
	Shim       string
	Runc       string
	Pause      string
}

// FindBundle returns the first of dirs that holds every program of a bundle.
// Empty names are skipped. The error wraps ErrNoBundle and says, for each
// directory, what was missing.
func FindBundle(dirs ...string) (Bundle, error) {
	var missing []string
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		b, err := bundleIn(dir)
		if err == nil {
			return b, nil
		}
		missing = append(missing, err.Error())
	}
	if len(missing) == 0 {
		missing = append(missing, "no directory to look in was given")
	}
	return Bundle{}, fmt.Errorf("%w (%s): build them with `make bundle`, or name an existing runtime with --cri-endpoint",
		ErrNoBundle, strings.Join(missing, "; "))
}

func bundleIn(dir string) (Bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Bundle{}, err
	}
	b := Bundle{
		Dir:        dir,
		Containerd: filepath.Join(dir, containerdName),
		Shim:       filepath.Join(dir, shimName),
		Runc:       filepath.Join(dir, runcName),
		Pause:      filepath.Join(dir, pauseName),
	}
	return b, b.check()
}

// check makes sure that each program can be executed, so that a fault shows
// here and not in the middle of the first run.
func (b Bundle) check() error {
	for _, p := range []string{b.Containerd, b.Shim, b.Runc, b.Pause} {
		if err := executable(p); err != nil {
			return err
		}
	}
	return nil
}

func executable(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%q is not an absolute path", path)
	}
	fi, err := os.Stat(path)
	if err == nil && (!fi.Mode().IsRegular() || fi.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s is not an executable file", path)
	}
	return err
}

// looseRunc is runc for containers without control groups, beside it.
func (b Bundle) looseRunc() string { return filepath.Join(b.Dir, looseName) }

// RootlessKit is the program that makes the user namespace of a containerd
// without root, which is in the same bundle. It is needed only for that.
func (b Bundle) RootlessKit() (string, error) {
	p := filepath.Join(b.Dir, kitName)
	return p, executable(p)
}

// build identifies the containerd program, so that an upgrade of the bundle is
// noticed by a node that adopts a containerd started earlier.
func (b Bundle) build() (string, error) {
	var parts []string
	for _, p := range []string{b.Containerd, b.Shim} {
		fi, err := os.Stat(p)
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprintf("%s:%d:%d", filepath.Base(p), fi.Size(), fi.ModTime().UnixNano()))
	}
	return strings.Join(parts, " "), nil
}
