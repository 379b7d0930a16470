package cni

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modulePath marks a program as ours: Go writes the module of its main package
// into each binary, and stripping does not remove it.
const modulePath = "github.com/v6node/v6node"

// Inspect looks at an installation without changing it. Anything may be missing
// or broken: the report says so. An error means that something could not be
// read at all.
func Inspect(l Layout) (Report, error) {
	l, err := l.check()
	if err != nil {
		return Report{}, err
	}
	r := Report{Layout: l, Others: []Other{}, Problems: []string{}}
	if r.Conf, err = inspectConf(l.confFile()); err != nil {
		return r, err
	}
	if r.Plugin, err = inspectPlugin(l.pluginFile()); err != nil {
		return r, err
	}
	if r.Loopback, err = inspectPlugin(l.loopbackFile()); err != nil {
		return r, err
	}
	for _, d := range l.dropIns() {
		f, err := d.inspect()
		if err != nil {
			return r, err
		}
		r.DropIns = append(r.DropIns, f)
	}
	if r.Others, err = otherConfs(l.ConfDir); err != nil {
		return r, err
	}
	r.judge()
	return r, nil
}

// Compare marks an installed plugin of ours as stale if it is not the same, byte
// for byte, as executable, which is what Install would put there.
func (r *Report) Compare(executable string) error {
	sum, err := hashFile(executable)
	if err != nil {
		return fmt.Errorf("compare the installed CNI plugin with %s: %w", executable, err)
	}
	for _, f := range []*File{&r.Plugin, &r.Loopback} {
		if f.ours() {
			f.State = Current
			if f.SHA256 != sum {
				f.State = Stale
			}
		}
	}
	r.judge()
	return nil
}

// judge derives Effective and Problems from the rest.
func (r *Report) judge() {
	r.Effective = r.Installed()
	r.Problems = []string{}
	problem := func(format string, args ...any) {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
	install := fmt.Sprintf("%q", r.installCommand())
	switch {
	case r.Conf.State == Absent && r.Plugin.State == Absent:
		problem("the network is not installed; run %s", install)
	case r.Conf.State == Absent:
		problem("%s is missing; run %s", r.Conf.Path, install)
	case r.Plugin.State == Absent:
		problem("%s is missing; run %s", r.Plugin.Path, install)
	}
	for _, f := range append([]File{r.Conf, r.Plugin}, r.DropIns...) {
		switch f.State {
		case Foreign:
			problem("%s was not written by v6node; move it away and run %s", f.Path, install)
		case Stale:
			problem("%s is from another build of v6node; run %s", f.Path, install)
		}
	}
	switch {
	case !r.Installed():
	case r.Loopback.State == Absent && r.CRIO == nil:
		problem("%s is missing, which containerd needs as well unless it has use_internal_loopback = true; run %s", r.Loopback.Path, install)
	case r.Loopback.State == Stale:
		problem("%s is from another build of v6node; run %s", r.Loopback.Path, install)
	}
	for _, f := range r.DropIns {
		if f.State == Absent {
			problem("%s is missing; run %s and restart CRI-O", f.Path, install)
		}
		if !f.ours() {
			r.Effective = false
		}
	}
	if r.Conf.State == Absent || len(r.DropIns) > 0 {
		return // then nothing is shadowed or hidden, or CRI-O is told the name
	}
	for _, o := range r.Others {
		if o.Earlier {
			r.Effective = false
			problem("%s sorts before %s, so that a runtime uses it instead; rename it, or name the network %q in the runtime's own configuration",
				o, ConfName, NetworkName)
		}
	}
}

func inspectConf(path string) (File, error) {
	return inspectFile(path, "CNI configuration", ConfList(), confIsOurs)
}

// inspectFile compares a file with what it should hold. ours tells whether other
// content is of an older version of this program.
func inspectFile(path, what string, current []byte, ours func([]byte) bool) (File, error) {
	f := File{Path: path, State: Absent}
	data, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil && !errors.Is(err, errNotPlain) {
		return f, fmt.Errorf("read the %s: %w", what, err)
	}
	f.State = Foreign
	if err != nil {
		return f, nil
	}
	sum := sha256.Sum256(data)
	f.SHA256 = hex.EncodeToString(sum[:])
	switch {
	case bytes.Equal(data, current):
		f.State = Current
	case ours(data):
		f.State = Stale
	}
	return f, nil
}

// confIsOurs tells whether a configuration has both our mark and nothing but
// our plugin in it: a file to which somebody has added a plugin is theirs now.
func confIsOurs(data []byte) bool {
	var keys map[string]json.RawMessage
	if json.Unmarshal(data, &keys) != nil || stringOf(keys["managedBy"]) != managedBy {
		return false
	}
	_, plugins := describeConf(data)
	return len(plugins) > 0 && !slices.ContainsFunc(plugins, func(p string) bool { return p != PluginName })
}

func inspectPlugin(path string) (File, error) {
	f := File{Path: path, State: Absent}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("look at the CNI plugin: %w", err)
	}
	f.State = Foreign
	if !info.Mode().IsRegular() {
		return f, nil
	}
	if f.SHA256, err = hashFile(path); err != nil {
		return f, fmt.Errorf("read the CNI plugin: %w", err)
	}
	if f.Version, err = pluginVersion(path); err == nil {
		f.State = Current
	}
	return f, nil
}

// errNotOurs is returned for a program that was not built from this module.
var errNotOurs = errors.New("it is not a program of v6node")

// pluginVersion reads a program's version without executing it.
func pluginVersion(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNotOurs, err)
	}
	if info.Main.Path != modulePath && !strings.HasPrefix(info.Path, modulePath+"/") {
		return "", fmt.Errorf("%w but of %s", errNotOurs, info.Path)
	}
	version := info.Main.Version
	if version == "" || version == "(devel)" {
		version = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				version += "-" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return version, nil
}

// otherConfs lists what a runtime would take for a network's configuration in
// dir, other than ours, in the order in which the runtime takes them.
func otherConfs(dir string) ([]Other, error) {
	others := []Other{}
	entries, err := os.ReadDir(dir) // sorted bytewise, as the runtimes sort
	if errors.Is(err, fs.ErrNotExist) {
		return others, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the CNI configurations: %w", err)
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
		default:
			continue
		}
		if e.IsDir() || e.Name() == ConfName {
			continue
		}
		o := Other{Path: filepath.Join(dir, e.Name()), Earlier: e.Name() < ConfName}
		if data, err := readBounded(o.Path); err == nil {
			o.Network, o.Plugins = describeConf(data)
		}
		if len(o.Plugins) == 1 && o.Plugins[0] == "loopback" {
			continue // lo only: it is not a way out and competes with nothing
		}
		others = append(others, o)
	}
	return others, nil
}

// describeConf returns a configuration's network name and plugin types, as far
// as they can be read. It decodes into maps because a runtime takes keys exactly
// as they are written, and a struct would also take "Plugins" for "plugins".
func describeConf(data []byte) (network string, plugins []string) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(data, &keys) != nil {
		return "", nil
	}
	if keys["type"] != nil {
		plugins = append(plugins, stringOf(keys["type"]))
	}
	var list []map[string]json.RawMessage
	if keys["plugins"] != nil && json.Unmarshal(keys["plugins"], &list) != nil {
		return stringOf(keys["name"]), append(plugins, "")
	}
	for _, p := range list {
		plugins = append(plugins, stringOf(p["type"]))
	}
	return stringOf(keys["name"]), plugins
}

// stringOf returns the string that raw is, or "".
func stringOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// errNotPlain is returned for what is not a regular file of reasonable size.
var errNotPlain = errors.New("not a regular file of at most 1 MiB")

// readBounded reads a configuration file. It follows symbolic links, as the
// runtimes do, but does not wait for a FIFO or read a device.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxConf {
		return nil, fmt.Errorf("%s: %w", path, errNotPlain)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConf))
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
