package cni

import (
	"fmt"
	"path/filepath"
)

// Layout says where a container runtime looks for networks. An empty field
// means the default (DefaultConfDir, DefaultBinDir).
type Layout struct {
	ConfDir string `json:"conf_dir"` // configurations; the runtime watches it
	BinDir  string `json:"bin_dir"`  // plugins
	CRIO    *CRIO  `json:"crio,omitempty"`
}

func (l Layout) withDefaults() Layout {
	if l.ConfDir == "" {
		l.ConfDir = DefaultConfDir
	}
	if l.BinDir == "" {
		l.BinDir = DefaultBinDir
	}
	if l.CRIO != nil {
		c := *l.CRIO
		if c.Dir == "" {
			c.Dir = DefaultCRIODir
		}
		if c.RegistriesDir == "" {
			c.RegistriesDir = DefaultRegistriesDir
		}
		l.CRIO = &c
	}
	return l
}

// check returns the layout with defaults filled in; all must be absolute, for
// a runtime's working directory is not ours.
func (l Layout) check() (Layout, error) {
	l = l.withDefaults()
	dirs := []string{l.ConfDir, l.BinDir}
	if l.CRIO != nil {
		dirs = append(dirs, l.CRIO.Dir, l.CRIO.RegistriesDir)
	}
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			return l, fmt.Errorf("the directory %q is not an absolute path; name it from the root on", dir)
		}
	}
	return l, nil
}

// installCommand is what an administrator types to install into this layout.
func (l Layout) installCommand() string {
	command := fmt.Sprintf("v6node cni install --conf-dir %s --bin-dir %s", l.ConfDir, l.BinDir)
	if l.CRIO == nil {
		return command
	}
	command += " --runtime crio"
	if l.CRIO.Dir != DefaultCRIODir {
		command += " --drop-in-dir " + l.CRIO.Dir
	}
	if l.CRIO.RegistriesDir != DefaultRegistriesDir {
		command += " --registries-dir " + l.CRIO.RegistriesDir
	}
	return command
}

func (l Layout) confFile() string     { return filepath.Join(l.ConfDir, ConfName) }
func (l Layout) loopbackFile() string { return filepath.Join(l.BinDir, LoopbackName) }
func (l Layout) pluginFile() string   { return filepath.Join(l.BinDir, PluginName) }
