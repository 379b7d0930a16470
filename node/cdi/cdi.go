// Package cdi knows which devices this machine offers to containers: it reads
// the files of the Container Device Interface as the runtimes do. Giving a device
// to a container is the runtime's work.
package cdi

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Dirs are where the runtimes look.
func Dirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// maxFile bounds a file; real ones have some kilobytes.
const maxFile = 4 << 20

// Devices returns the names of all devices by kind ("nvidia.com/gpu": "0",
// "1"), in the order of the files. A directory that does not exist holds none. A
// file that cannot be read or understood is left out and named in the error,
// beside what the others hold: the runtimes do the same.
func Devices(dirs ...string) (map[string][]string, error) {
	out := map[string][]string{}
	var errs []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("read the CDI directory: %w", err))
		}
		for _, e := range entries {
			switch filepath.Ext(e.Name()) {
			case ".json", ".yaml":
			default:
				continue
			}
			if err := read(filepath.Join(dir, e.Name()), out); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return out, errors.Join(errs...)
}

func read(path string, out map[string][]string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read a CDI file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read a CDI file: %w", err)
	}
	if len(b) > maxFile {
		return fmt.Errorf("the CDI file %s has more than %d bytes", path, maxFile)
	}
	// JSON is YAML too.
	var spec struct {
		Kind    string `yaml:"kind"`
		Devices []struct {
			Name string `yaml:"name"`
		} `yaml:"devices"`
	}
	if err := yaml.Unmarshal(b, &spec); err != nil {
		return fmt.Errorf("the CDI file %s is not understood: %w", path, err)
	}
	if spec.Kind == "" {
		return fmt.Errorf("the CDI file %s names no kind of device", path)
	}
	for _, d := range spec.Devices {
		if d.Name != "" && !slices.Contains(out[spec.Kind], d.Name) {
			out[spec.Kind] = append(out[spec.Kind], d.Name)
		}
	}
	return nil
}
