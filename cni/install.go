package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The reasons for which Install leaves everything as it is.
var (
	// ErrHidesNetwork: our configuration would come before another network's,
	// which whoever uses that runtime (a kubelet, perhaps) would lose.
	ErrHidesNetwork = errors.New("another network would be hidden")
	// ErrShadowed: another configuration sorts before ours, so that
	// installing ours would have no effect.
	ErrShadowed = errors.New("another network comes first")
	// ErrForeignFile: a file of somebody else's has the name of one of ours.
	ErrForeignFile = errors.New("a foreign file is in the way")
)

// InstallOption changes what Install dares to do.
type InstallOption func(*installer)

// Force makes Install go on where it would return ErrHidesNetwork or
// ErrShadowed. It does not overwrite foreign files.
func Force() InstallOption { return func(i *installer) { i.force = true } }

type installer struct{ force bool }

// The modes are what the runtimes need. Neither file holds a secret; a rootless
// runtime reads the configuration and executes the plugin as a user who is not
// the files' owner, and so do tools that only look (crictl, podman network ls).
// Nobody but the owner may write: a runtime executes the plugin as root.
const (
	confMode   = 0o644
	pluginMode = 0o755
	dirMode    = 0o755
)

// Install copies executable, a program that calls PluginMain, into the plugin
// directory under the name PluginName, and also under LoopbackName where there is
// none, and writes ConfList into the configuration directory. All are replaced
// atomically and the configuration comes last, so that a runtime never sees half of one or a configuration without its
// plugin; containerd and CRI-O notice by themselves. Missing directories
// are made. What is already as it should be is left untouched, so that
// repeating Install does nothing.
//
// It refuses, before changing anything, with ErrForeignFile, and at the first
// installation with ErrHidesNetwork or ErrShadowed; the report then says what is
// there.
func Install(l Layout, executable string, opts ...InstallOption) (Report, error) {
	var in installer
	for _, o := range opts {
		o(&in)
	}
	r, err := Inspect(l)
	if err != nil {
		return r, err
	}
	if _, err := pluginVersion(executable); err != nil {
		return r, fmt.Errorf("install %s as the CNI plugin: %w", executable, err)
	}
	if err := r.Compare(executable); err != nil {
		return r, err
	}
	if err := in.allowed(r); err != nil {
		return r, err
	}

	changed, err := r.installDropIns(r.DropIns)
	if err != nil {
		return r, err
	}
	modes := map[string]os.FileMode{r.Plugin.Path: pluginMode, r.Conf.Path: confMode}
	for _, f := range r.DropIns {
		modes[f.Path] = confMode
	}
	for _, f := range []File{r.Loopback, r.Plugin} {
		if f.State == Foreign {
			continue // a loopback: allowed has refused a plugin
		}
		modes[f.Path] = pluginMode
		if f.State == Current {
			continue
		}
		if err := copyProgram(executable, f.Path); err != nil {
			return r, fmt.Errorf("install the CNI plugin: %w", err)
		}
		changed = true
	}
	if r.Conf.State != Current {
		if err := replaceFile(r.Conf.Path, bytes.NewReader(ConfList()), confMode); err != nil {
			return r, fmt.Errorf("install the CNI configuration: %w", err)
		}
		changed = true
	}
	for path, mode := range modes {
		fixed, err := fixMode(path, mode)
		if err != nil {
			return r, fmt.Errorf("install the CNI network: %w", err)
		}
		changed = changed || fixed
	}

	if r, err = Inspect(l); err != nil {
		return r, err
	}
	r.Changed = changed
	return r, r.Compare(executable)
}

// allowed decides whether Install may go on.
func (in *installer) allowed(r Report) error {
	for _, f := range append([]File{r.Plugin, r.Conf}, r.DropIns...) {
		if f.State == Foreign {
			return fmt.Errorf("%w: %s was not written by v6node; move it away and install again", ErrForeignFile, f.Path)
		}
	}
	// Once our configuration is there, replacing it changes nothing for others.
	if in.force || r.Conf.State != Absent || len(r.Others) == 0 {
		return nil
	}
	var earlier, later []string
	for _, o := range r.Others {
		// CRI-O is told the network's name.
		if o.Earlier && r.CRIO == nil {
			earlier = append(earlier, o.String())
		} else {
			later = append(later, o.String())
		}
	}
	if len(earlier) > 0 {
		return fmt.Errorf("%w: %s sorts before %s and would stay in use; rename or remove it, "+
			"or use --force if the runtime's own configuration names the network %q",
			ErrShadowed, strings.Join(earlier, ", "), ConfName, NetworkName)
	}
	return fmt.Errorf("%w: new sandboxes of this runtime would no longer get %s, on which a kubelet or another user may depend; "+
		"give v6node a runtime or configuration directory of its own, or use --force if nobody else uses this one",
		ErrHidesNetwork, strings.Join(later, ", "))
}

// Uninstall removes what Install wrote and nothing else: a file is removed only
// if it is recognised as ours by its content. Directories stay, for a runtime
// stops watching a configuration directory that was removed. It is no error if
// nothing is there. Living sandboxes keep their network.
func Uninstall(l Layout) (Report, error) {
	r, err := Inspect(l)
	if err != nil {
		return r, err
	}
	changed := false
	// The configuration goes first: without it nobody asks for the plugin.
	for _, f := range append([]File{r.Conf, r.Plugin, r.Loopback}, r.DropIns...) {
		if !f.ours() {
			continue
		}
		if err := os.Remove(f.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return r, fmt.Errorf("uninstall the CNI network: %w", err)
		}
		changed = true
	}
	if r, err = Inspect(l); err != nil {
		return r, err
	}
	r.Changed = changed
	return r, nil
}

func copyProgram(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return replaceFile(to, f, pluginMode)
}

// replaceFile puts content at path atomically and durably. The temporary file is
// in the same directory on purpose: containerd reloads when it sees a file
// renamed out of its name there, and ignores the creation of one. Its name has
// no extension that a runtime would read.
func replaceFile(path string, content io.Reader, mode os.FileMode) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".v6node-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// fixMode repairs the mode of an installed file and tells whether it had to.
func fixMode(path string, mode os.FileMode) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	if info.Mode().Perm() == mode {
		return false, nil
	}
	return true, os.Chmod(path, mode)
}
