package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// MachineCerts are where administrators keep mirrors and certificate authorities
// of registries, for containerd, for Docker and for CRI-O.
func MachineCerts() []string {
	return []string{"/etc/containerd/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"}
}

// CertsDirs are the directories in which a containerd with this root finds
// mirrors and certificates of registries: its own, those that are named, and the
// machine's. The first that knows a registry counts.
func CertsDirs(root string, named []string) []string {
	return slices.Concat([]string{filepath.Join(root, "certs.d")}, named, MachineCerts())
}

// linkRegistries makes one directory of several that have a directory for each
// registry: for pulls, containerd 2 takes its config_path as one path, and finds
// nothing where it is a list. The first that knows a registry wins. What is below a
// registry's directory may change at any time, for the links lead there.
func linkRegistries(into string, from ...string) error {
	want := map[string]string{}
	for _, dir := range from {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // not for this user
			return fmt.Errorf("read the configuration of registries: %w", err)
		}
		for _, e := range entries {
			if _, known := want[e.Name()]; !known {
				want[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	have, err := os.ReadDir(into)
	if err != nil {
		return err
	}
	for _, e := range have {
		path := filepath.Join(into, e.Name())
		if target, err := os.Readlink(path); err == nil && target == want[e.Name()] {
			delete(want, e.Name())
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for name, target := range want {
		if err := os.Symlink(target, filepath.Join(into, name)); err != nil {
			return err
		}
	}
	return nil
}
