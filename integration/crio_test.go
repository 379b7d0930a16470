//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

[crio.network]
network_dir = %q
plugin_dirs = [%q]

[crio.nri]
enable_nri = false
`, in("root"), in("runroot"), in("logs"), in("version"), in("version-persist"), in("clean.shutdown"), s.socket(),
		in("exits"), in("attach"), in("ns"), filepath.Join(programs, "pinns"),
		filepath.Join(s.w.programs.Bundle, "runc"), in("runc"), conmon,
		s.pause, in("policy.json"), in("policies"), s.confDir, s.binDir)
}
