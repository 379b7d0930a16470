package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/v6node/v6node/internal/userns"
)

// Config says where an embedded containerd lives and what it is made of.
type Config struct {
	// Root keeps what must survive a reboot: images, writable layers, the
	// database. It wants a disk with room. State keeps what need not: sockets,
	// configuration, log. Both are created with mode 0700 and belong to one
	// node at a time.
	Root, State string
	Bundle      Bundle
	// PluginBinary is executed as the CNI plugin of each type that
	// CNIConfList names.
	PluginBinary string
	// CNIConfList is the only network configuration of the sandboxes;
	// CNIConfName is its file name, ending in ".conflist".
	CNIConfList []byte
	CNIConfName string
	// Log receives what the supervision does; containerd's own log goes to a
	// file in State. Nil discards.
	Log *slog.Logger
	// Handlers are runtime handlers besides runc.
	Handlers []Handler
	// CertsDirs have mirrors and certificates of registries, see CertsDirs.
	CertsDirs []string
	// NoCgroups makes containerd do without control groups, where it may make
	// none: nothing is limited then.
	NoCgroups bool
	// LogLevel of containerd: trace, debug, info, warn (default), error.
	LogLevel string
}

var logLevels = []string{"trace", "debug", "info", "warn", "error"}

// normalize fills in defaults, makes the paths absolute and refuses what
// containerd would only refuse later or misread.
func (c *Config) normalize() error {
	if c.Root == "" || c.State == "" {
		return errors.New("the embedded containerd needs a root and a state directory")
	}
	for _, p := range []*string{&c.Root, &c.State} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		*p = abs
	}
	for _, p := range []string{c.Root, c.State, c.Bundle.Dir, c.PluginBinary} {
		if !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl) {
			return fmt.Errorf("the path %q has characters that cannot stand in containerd's configuration", p)
		}
	}
	if c.Root == c.State {
		return fmt.Errorf("root and state directory of the embedded containerd are both %s, and must be different", c.Root)
	}
	if err := c.Bundle.check(); err != nil {
		return fmt.Errorf("the bundle of the embedded containerd is not complete: %w", err)
	}
	if !filepath.IsAbs(c.PluginBinary) {
		return fmt.Errorf("the CNI plugin %q is not an absolute path", c.PluginBinary)
	}
	if c.NoCgroups || userns.OneID() {
		if err := executable(c.Bundle.looseRunc()); err != nil {
			return fmt.Errorf("the bundle of the embedded containerd is not complete: %w", err)
		}
	}
	if filepath.Base(c.CNIConfName) != c.CNIConfName || filepath.Ext(c.CNIConfName) != ".conflist" {
		return fmt.Errorf("the CNI configuration's name %q is not a file name that ends in .conflist", c.CNIConfName)
	}
	if err := c.checkHandlers(); err != nil {
		return err
	}
	if c.LogLevel == "" {
		c.LogLevel = "warn"
	}
	if !slices.Contains(logLevels, c.LogLevel) {
		return fmt.Errorf("containerd's log level %q is not one of %v", c.LogLevel, logLevels)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
