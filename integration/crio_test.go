//go:build integration

package integration

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// crioDropIns is the directory of CRI-O's drop-in files; v6node cni install
// writes there, as into /etc/crio/crio.conf.d.
func (s *server) crioDropIns() string { return filepath.Join(s.dir, "crio.conf.d") }

// crioRegistries is the directory of drop-in files of CRI-O's registries. CRI-O
// takes the one below its HOME where there is a registries.conf, else that in
// /etc/containers.
func (s *server) crioRegistries() string {
	return filepath.Join(s.dir, ".config", "containers", "registries.conf.d")
}

// crioMirror does what the manual tells the administrator of a CRI-O whose images are to come from a mirror with a
// private authority and a login (docs/registries.md), for a registry, and waits until CRI-O has read it: until it pulls probe.
func (s *server) crioMirror(t *testing.T, registry, mirror string, authority []byte, user, password, probe string) {
	t.Helper()
	s.w.put(t, filepath.Join(s.crioRegistries(), registry+".conf"), fmt.Sprintf("[[registry]]\nlocation = %q\n\n[[registry.mirror]]\nlocation = %q\n", registry, mirror), 0o644)
	// What is /etc/containers/certs.d for a CRI-O that is the machine's.
	s.w.put(t, filepath.Join(s.dir, ".config", "containers", "certs.d", mirror, "ca.crt"), string(authority), 0o644)
	s.w.put(t, filepath.Join(s.dir, "auth.json"), fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, mirror, base64.StdEncoding.EncodeToString([]byte(user+":"+password))), 0o600)
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil { // systemctl reload crio
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := s.crictl(t, "pull", probe)
		return err
	})
}

// crio is CRI-O with runc, in directories of its own.
func (s *server) crio(t *testing.T) {
	t.Helper()
	programs := programDir(t, "V6NODE_RUNTIMES", "../.cache/runtimes", "crio", "pinns")
	conmon, err := exec.LookPath("conmon")
	if err != nil {
		t.Fatalf("%v: install the package conmon", err)
	}
	config := filepath.Join(s.dir, "crio.conf")
	for _, dir := range []string{s.crioDropIns(), s.crioRegistries()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		config:                              s.crioConfig(programs, conmon),
		filepath.Join(s.dir, "policy.json"): `{"default":[{"type":"insecureAcceptAnything"}]}`,
		filepath.Join(s.dir, "auth.json"):   "{}",
		filepath.Join(s.dir, ".config", "containers", "registries.conf"): "unqualified-search-registries = []\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.command = func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(programs, "crio"), "--config", config, "--config-dir", s.crioDropIns())
		cmd.Env = append(os.Environ(), "TMPDIR="+s.w.tmp(), "HOME="+s.dir)
		return cmd
	}
}

// crioConfig is what a machine without systemd needs; the rest comes from the
// drop-in that v6node cni install writes.
func (s *server) crioConfig(programs, conmon string) string {
	in := func(name string) string { return filepath.Join(s.dir, name) }
	return fmt.Sprintf(`[crio]
root = %q
runroot = %q
storage_driver = "overlay"
log_dir = %q
version_file = %q
version_file_persist = %q
clean_shutdown_file = %q

[crio.api]
listen = %q

[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
container_exits_dir = %q
container_attach_socket_dir = %q
namespaces_dir = %q
pinns_path = %q
irqbalance_config_restore_file = "disable"

[crio.runtime.runtimes.runc]
runtime_path = %q
runtime_root = %q
monitor_path = %q
monitor_cgroup = "pod"

[crio.image]
pause_image = %q
signature_policy = %q
signature_policy_dir = %q
global_auth_file = %q

[crio.network]
network_dir = %q
plugin_dirs = [%q]

[crio.nri]
enable_nri = false
`, in("root"), in("runroot"), in("logs"), in("version"), in("version-persist"), in("clean.shutdown"), s.socket(),
		in("exits"), in("attach"), in("ns"), filepath.Join(programs, "pinns"),
		filepath.Join(s.w.programs.Bundle, "runc"), in("runc"), conmon,
		s.pause, in("policy.json"), in("policies"), in("auth.json"), s.confDir, s.binDir)
}
