package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Handler is one more runtime handler besides runc, the default: runc with
// resource limits on the processes of its containers. CRI has no field for
// them, and after the start it is too late, so each list of limits is a handler
// of its own, with an OCI configuration from which its containers are made. The
// pause process of a sandbox is not limited.
type Handler struct {
	Name    string // letters, digits and -
	Rlimits []Rlimit
}

// Rlimit is a resource limit (getrlimit(2)), as the OCI runtime specification
// has it.
type Rlimit struct {
	Type string `json:"type"` // "RLIMIT_NOFILE"
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

var handlerName = regexp.MustCompile(`\A[a-z][a-z0-9-]{0,62}\z`)

func (c *Config) checkHandlers() error {
	seen := map[string]bool{"runc": true}
	for _, h := range c.Handlers {
		if !handlerName.MatchString(h.Name) || seen[h.Name] || len(h.Rlimits) == 0 {
			return fmt.Errorf("the runtime handler %q of the embedded containerd has no name of its own or no limits", h.Name)
		}
		seen[h.Name] = true
	}
	return nil
}

// handlerFile is what containerd's configuration says of a handler.
type handlerFile struct{ Name, Spec string }

func (l *layout) handlerFile(h Handler) handlerFile {
	return handlerFile{Name: h.Name, Spec: filepath.Join(l.handlers, h.Name+".json")}
}

// writeHandlers writes the OCI configurations of the handlers.
func writeHandlers(l *layout, handlers []Handler) error {
	for _, h := range handlers {
		spec, err := baseSpec(h.Rlimits)
		if err == nil {
			err = replaceFile(l.handlerFile(h).Spec, spec, 0o600)
		}
		if err != nil {
			return fmt.Errorf("the OCI configuration of the runtime handler %s: %w", h.Name, err)
		}
	}
	// What no handler uses any more.
	have, err := filepath.Glob(filepath.Join(l.handlers, "*.json"))
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, h := range handlers {
		wanted[l.handlerFile(h).Spec] = true
	}
	for _, path := range have {
		if !wanted[path] {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// baseSpec is an OCI configuration with resource limits. Otherwise it is what
// containerd starts from without one, less what CRI replaces in any case
// (capabilities, masked paths, the file system's place); a test holds the result
// to that.
func baseSpec(limits []Rlimit) ([]byte, error) {
	type object = map[string]any
	type list = []any
	mount := func(at, kind, source string, options ...string) object {
		return object{"destination": at, "type": kind, "source": source, "options": options}
	}
	var namespaces list
	for _, kind := range []string{"pid", "ipc", "uts", "mount", "network"} {
		namespaces = append(namespaces, object{"type": kind})
	}
	return json.MarshalIndent(object{
		"ociVersion": "1.3.0",
		"root":       object{"path": "rootfs"},
		"process": object{
			"cwd": "/", "noNewPrivileges": true, "user": object{"uid": 0, "gid": 0},
			"capabilities": object{}, "rlimits": limits,
		},
		"mounts": list{
			mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
			mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
			mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
			mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
			mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
		},
		"linux": object{
			"namespaces": namespaces,
			"resources":  object{"devices": list{object{"allow": false, "access": "rwm"}}},
		},
	}, "", "  ")
}
