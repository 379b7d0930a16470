//go:build linux

// Command v6node-runc is the runc beside it for a user to whom no control
// groups are delegated. The embedded containerd names a control group in every
// container's OCI configuration, whether it may make it or not, and runc does not
// go on without one that is named. This program takes group and limits out of
// the configuration and then becomes runc.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "v6node-runc:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if bundle := bundleOf(args[1:]); bundle != "" {
		if err := relax(filepath.Join(bundle, "config.json")); err != nil {
			return fmt.Errorf("take the control group out of the container's configuration: %w", err)
		}
	}
	runc := filepath.Join(filepath.Dir(self), "runc")
	return fmt.Errorf("start %s: %w", runc, syscall.Exec(runc, append([]string{runc}, args[1:]...), os.Environ()))
}

// bundleOf finds the OCI bundle of a container that is to be made, "" where none
// is: only the commands create and run have that option.
func bundleOf(args []string) string {
	for i, a := range args {
		if dir, ok := strings.CutPrefix(a, "--bundle="); ok {
			return dir
		}
		if (a == "--bundle" || a == "-b") && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// relax changes an OCI configuration, of which it leaves alone what it does not
// know.
func relax(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if b, err = withoutCgroup(b); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func withoutCgroup(config []byte) ([]byte, error) {
	var spec, linux map[string]json.RawMessage
	if err := json.Unmarshal(config, &spec); err != nil {
		return nil, err
	}
	if spec["linux"] == nil {
		return config, nil
	}
	if err := json.Unmarshal(spec["linux"], &linux); err != nil {
		return nil, err
	}
	delete(linux, "cgroupsPath")
	delete(linux, "resources")
	var err error
	if spec["linux"], err = json.Marshal(linux); err != nil {
		return nil, err
	}
	return json.Marshal(spec)
}
