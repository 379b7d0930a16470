package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// installCNI writes the network configuration and links the plugin under each
// name that it mentions. Other files in the two directories are removed: the
// sandboxes have the network that was asked for, or none.
func installCNI(l *layout, c *Config) error {
	var conf struct {
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal(c.CNIConfList, &conf); err != nil {
		return fmt.Errorf("%s: %w", c.CNIConfName, err)
	}
	keep := map[string]bool{c.CNIConfName: true}
	for _, p := range conf.Plugins {
		if p.Type == "" || filepath.Base(p.Type) != p.Type {
			return fmt.Errorf("%s: plugin type %q is not a file name", c.CNIConfName, p.Type)
		}
		link := filepath.Join(l.cniBin, p.Type)
		keep[p.Type] = true
		if target, err := os.Readlink(link); err == nil && target == c.PluginBinary {
			continue
		}
		if err := os.RemoveAll(link + ".new"); err != nil {
			return err
		}
		if err := errors.Join(os.Symlink(c.PluginBinary, link+".new"), os.Rename(link+".new", link)); err != nil {
			return err
		}
	}
	if err := replaceFile(filepath.Join(l.cniConf, c.CNIConfName), c.CNIConfList, 0o600); err != nil {
		return err
	}
	for _, dir := range []string{l.cniBin, l.cniConf} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !keep[e.Name()] {
				if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
