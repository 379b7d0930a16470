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
}

func (l Layout) withDefaults() Layout {
	if l.ConfDir == "" {
		l.ConfDir = DefaultConfDir
	}
	if l.BinDir == "" {
		l.BinDir = DefaultBinDir
	}
	return l
}

// check returns the layout with defaults filled in; both must be absolute, for
// a runtime's working directory is not ours.
func (l Layout) check() (Layout, error) {
	l = l.withDefaults()
	for _, dir := range []string{l.ConfDir, l.BinDir} {
		if !filepath.IsAbs(dir) {
			return l, fmt.Errorf("the CNI directory %q is not an absolute path; name it from the root on", dir)
		}
	}
	return l, nil
}

func (l Layout) confFile() string     { return filepath.Join(l.ConfDir, ConfName) }
func (l Layout) loopbackFile() string { return filepath.Join(l.BinDir, LoopbackName) }
func (l Layout) pluginFile() string   { return filepath.Join(l.BinDir, PluginName) }
