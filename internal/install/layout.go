package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/v6node/v6node/contrib/systemd"
)

// DefaultPrefix is that of an installation for the whole machine.
const DefaultPrefix = "/usr/local"

// bundleDir is below the prefix, where a program in bin looks for its bundle.
const bundleDir = "libexec/v6node"

// Modes of what is installed. Nothing of it is secret, and nobody but the owner
// may write: root executes it.
const (
	programMode = 0o755
	dataMode    = 0o644
	dirMode     = 0o755
	privateMode = 0o700
)

// Layout says where v6node is on a machine.
type Layout struct {
	// DestDir is put before each path, for who stages a package; "" for none.
	DestDir string
	// Prefix is the absolute directory that has bin and libexec in it.
	Prefix string
	// User is set for an installation in a normal user's home.
	User bool
	// ConfigDir and StateDir are the absolute directories of the nodes'
	// configurations and states, EnabledDir that of the links by which
	// systemd starts units.
	ConfigDir, StateDir, EnabledDir string
}

// System is an installation for the whole machine.
func System(prefix, destDir string) Layout {
	return Layout{DestDir: destDir, Prefix: prefix, ConfigDir: "/etc/v6node", StateDir: "/var/lib/v6node", EnabledDir: "/etc/systemd/system"}
}

// User is an installation in the home of the user whose directories the
// environment names (XDG Base Directory Specification).
func User() (Layout, error) {
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return Layout{}, errors.New("the home directory is not known: set HOME")
	}
	xdg := func(variable, fallback string) string {
		if dir := os.Getenv(variable); filepath.IsAbs(dir) {
			return dir
		}
		return filepath.Join(home, fallback)
	}
	config := xdg("XDG_CONFIG_HOME", ".config")
	return Layout{
		Prefix: filepath.Join(home, ".local"), User: true,
		ConfigDir:  filepath.Join(config, "v6node"),
		StateDir:   filepath.Join(xdg("XDG_STATE_HOME", ".local/state"), "v6node"),
		EnabledDir: filepath.Join(config, "systemd", "user"),
	}, nil
}

// at is where a path of the installed system is now.
func (l Layout) at(path string) string { return filepath.Join(l.DestDir, path) }

// under is where a path below the prefix is now.
func (l Layout) under(rel string) string { return l.at(filepath.Join(l.Prefix, rel)) }

// unit is the unit that starts a node, below the prefix.
func (l Layout) unit() string {
	if l.User {
		return "share/systemd/user/v6node.service"
	}
	return "lib/systemd/system/v6node@.service"
}

// Program is where the installed program is.
func (l Layout) Program() string { return filepath.Join(l.Prefix, "bin", "v6node") }

// Unit is where the unit is that starts a node.
func (l Layout) Unit() string { return filepath.Join(l.Prefix, l.unit()) }

func (l Layout) check() error {
	for _, dir := range []string{l.Prefix, l.ConfigDir, l.StateDir, l.EnabledDir} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
			return fmt.Errorf("%q cannot be a directory of an installation: name an absolute one, such as %s", dir, DefaultPrefix)
		}
	}
	return nil
}

// Source is what is installed.
type Source struct {
	Version string
	Program string // v6node
	Plugin  string // v6node-cni, or "" for none
	Bundle  string // directory of the managed containerd's programs, or "" for none
	// Completions are scripts by the name of their shell.
	Completions map[string][]byte
}

// The programs of a bundle. What is not in required serves people and tests.
var (
	required = []string{"containerd", "containerd-shim-runc-v2", "runc", "v6node-pause"}
	optional = []string{"rootlesskit", "v6node-runc", "crictl", "algorithms/average", "algorithms/testalgo"}
)

// completionFiles are where shells look for completions, below the prefix.
var completionFiles = map[string]string{
	"bash": "share/bash-completion/completions/v6node",
	"zsh":  "share/zsh/site-functions/_v6node",
	"fish": "share/fish/vendor_completions.d/v6node.fish",
}

// item is one file of an installation.
type item struct {
	rel  string // below the prefix
	mode fs.FileMode
	open func() (io.ReadCloser, error)
}

func program(rel, from string) item {
	return item{rel, programMode, func() (io.ReadCloser, error) { return os.Open(from) }}
}

func data(rel string, content []byte) item {
	return item{rel, dataMode, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
}

// items lists what is to be installed. The program comes last: it is the one
// that starts the others.
func (l Layout) items(s Source) ([]item, error) {
	var out []item
	if s.Bundle != "" {
		for _, name := range required {
			out = append(out, program(filepath.Join(bundleDir, name), filepath.Join(s.Bundle, name)))
		}
		for _, name := range optional {
			from := filepath.Join(s.Bundle, name)
			if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			out = append(out, program(filepath.Join(bundleDir, name), from))
		}
	}
	if s.Plugin != "" {
		out = append(out, program(filepath.Join(bundleDir, filepath.Base(s.Plugin)), s.Plugin))
	}
	for shell, script := range s.Completions {
		rel, ok := completionFiles[shell]
		if !ok {
			return nil, fmt.Errorf("it is not known where the shell %s looks for completions", shell)
		}
		out = append(out, data(rel, script))
	}
	slices.SortFunc(out, func(a, b item) int { return bytes.Compare([]byte(a.rel), []byte(b.rel)) })
	placed := func(unit []byte) []byte {
		return bytes.ReplaceAll(unit, []byte(systemd.Program), []byte(l.Program()))
	}
	if l.User {
		out = append(out, data(l.unit(), placed(systemd.UserUnit)))
	} else {
		out = append(out, data(l.unit(), placed(systemd.SystemUnit)),
			data("lib/systemd/user/v6node.service", placed(systemd.UserUnit)), data("lib/tmpfiles.d/v6node.conf", systemd.Tmpfiles))
	}
	return append(out, program("bin/v6node", s.Program)), nil
}
