package reference

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrNotFound: no directory has such a file.
var ErrNotFound = errors.New("there is no such SIF image")

// ErrOutside: the name leads out of its directory, or to what is not a file.
var ErrOutside = errors.New("not a file inside the configured directories")

// Directories are where SIF images may lie, the first one that has a name wins.
type Directories []string

// Open opens the file that a sif: reference names: NAME as it is, or else with ".sif"
// behind it. Links are followed as long as they stay inside the directory.
func (d Directories) Open(r Reference) (*os.File, error) {
	if len(d) == 0 {
		return nil, fmt.Errorf("%w: %s cannot be used because no directories for SIF images are configured", ErrNotFound, r)
	}
	for _, dir := range d {
		for _, name := range []string{r.Name, r.Name + ".sif"} {
			f, err := openIn(dir, name)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("open %s: %w", r, err)
			}
			return f, nil
		}
	}
	return nil, fmt.Errorf("%w: none of the configured directories has %s", ErrNotFound, r.Name)
}

func openIn(dir, name string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// Not blocking: the name may be that of a pipe.
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		// What os.Root itself refuses has no number of the kernel's. ENXIO is a socket.
		var errno syscall.Errno
		if !errors.As(err, &errno) || errno == syscall.ELOOP || errno == syscall.ENXIO {
			return nil, fmt.Errorf("%w: %v", ErrOutside, err)
		}
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err == nil && !info.Mode().IsRegular() {
		err = ErrOutside
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
