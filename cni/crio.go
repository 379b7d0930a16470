package cni

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Where CRI-O looks for drop-in files, and what ours are called. CRI-O reads
// them at its start.
const (
	DefaultCRIODir       = "/etc/crio/crio.conf.d"
	DefaultRegistriesDir = "/etc/containers/registries.conf.d"
	DropInName           = "50-v6node.conf"
)

// DropInMark begins a drop-in file that Install wrote.
const DropInMark = "# Written by \"v6node cni install --runtime crio\""

// CRIO says where a CRI-O reads its drop-in files. A Layout without one is that
// of a runtime that needs none.
type CRIO struct {
	Dir           string `json:"dir"`            // of crio.conf(5)
	RegistriesDir string `json:"registries_dir"` // of containers-registries.conf(5)
}

// CRIODropIn is the configuration of CRI-O that the node wants, for plugins in
// binDir. With the default one it is contrib/crio/crio.conf.d/50-v6node.conf.
func CRIODropIn(binDir string) []byte {
	dirs := []string{DefaultBinDir}
	if dir := path.Clean(binDir); binDir != "" && dir != DefaultBinDir {
		dirs = append(dirs, dir)
	}
	var list []string
	for _, d := range dirs {
		list = append(list, fmt.Sprintf("%q", d))
	}
	return fmt.Appendf(nil, `%s; CRI-O reads it at its start.

[crio.runtime]
# A sandbox is its namespaces, without a process that only holds them: each
# container has a PID namespace of its own.
drop_infra_ctr = true
# Ends of containers are told as events. Without them the node lists its
# containers every second.
enable_pod_events = true

[crio.network]
# By name, so that it does not matter which configuration sorts first.
cni_default_network = %q
plugin_dirs = [%s]
`, DropInMark, NetworkName, strings.Join(list, ", "))
}

// RegistriesDropIn lets CRI-O pull from a registry on this machine's loopback,
// where the node serves images that it has converted, without TLS: what is
// pulled is named by its digest and does not leave the machine. It is
// contrib/crio/registries.conf.d/50-v6node.conf.
func RegistriesDropIn() []byte {
	return fmt.Appendf(nil, `%s; CRI-O reads it at its start.

# Any port of the machine's own loopback.
[[registry]]
location = "127.0.0.1"
insecure = true
`, DropInMark)
}

type dropIn struct {
	path    string
	content []byte
}

// dropIns are the files of this layout beyond those of CNI.
func (l Layout) dropIns() []dropIn {
	if l.CRIO == nil {
		return nil
	}
	return []dropIn{
		{path.Join(l.CRIO.Dir, DropInName), CRIODropIn(l.BinDir)},
		{path.Join(l.CRIO.RegistriesDir, DropInName), RegistriesDropIn()},
	}
}

func (d dropIn) inspect() (File, error) {
	return inspectFile(d.path, "drop-in file", d.content, func(data []byte) bool { return bytes.HasPrefix(data, []byte(DropInMark)) })
}

// installDropIns writes those that are not as they should be.
func (l Layout) installDropIns(have []File) (changed bool, err error) {
	for _, d := range l.dropIns() {
		if slices.ContainsFunc(have, func(f File) bool { return f.Path == d.path && f.State == Current }) {
			continue
		}
		if err := replaceFile(d.path, bytes.NewReader(d.content), confMode); err != nil {
			return changed, fmt.Errorf("install the drop-in file of CRI-O: %w", err)
		}
		changed = true
	}
	return changed, nil
}
