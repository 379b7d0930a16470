//go:build linux

// Command v6node-runc is the runc beside it for a user who cannot have all that
// the embedded containerd writes into every container's OCI configuration. It takes
// that out and then becomes runc:
//
//   - the control group with its limits, which no one has delegated to the user;
//     it stays where this program is called as runc-with-groups;
//   - the group 5 of terminals, where the user's namespace has one id only.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/v6node/v6node/internal/userns"
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
		groups := filepath.Base(args[0]) == groupsName
		if err := relax(filepath.Join(bundle, "config.json"), groups, userns.OneID()); err != nil {
			return fmt.Errorf("take out of the container's configuration what this user cannot have: %w", err)
		}
	}
	runc := filepath.Join(filepath.Dir(self), "runc")
	return fmt.Errorf("start %s: %w", runc, syscall.Exec(runc, append([]string{runc}, args[1:]...), os.Environ()))
}

// groupsName is the name under which control groups stay.
const groupsName = "runc-with-groups"

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
func relax(path string, groups, oneID bool) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !groups {
		if b, err = withoutCgroup(b); err != nil {
			return err
		}
	}
	if oneID {
		if b, err = withoutTerminalGroup(b); err != nil {
			return err
		}
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

func withoutTerminalGroup(config []byte) ([]byte, error) {
	var spec map[string]json.RawMessage
	var mounts []map[string]json.RawMessage
	if err := json.Unmarshal(config, &spec); err != nil {
		return nil, err
	}
	if spec["mounts"] == nil {
		return config, nil
	}
	if err := json.Unmarshal(spec["mounts"], &mounts); err != nil {
		return nil, err
	}
	for _, m := range mounts {
		var kind string
		var options []string
		if json.Unmarshal(m["type"], &kind) != nil || kind != "devpts" || json.Unmarshal(m["options"], &options) != nil {
			continue
		}
		options = slices.DeleteFunc(options, func(o string) bool { return strings.HasPrefix(o, "gid=") })
		b, err := json.Marshal(options)
		if err != nil {
			return nil, err
		}
		m["options"] = b
	}
	b, err := json.Marshal(mounts)
	if err != nil {
		return nil, err
	}
	spec["mounts"] = b
	return json.Marshal(spec)
}
