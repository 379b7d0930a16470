//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// containerd is the release from which the managed one is built too, with a
// configuration of its own.
func (s *server) containerd(t *testing.T) {
	t.Helper()
	s.runContainerd(t, filepath.Join(s.w.programs.Bundle, "containerd"), s.w.programs.Bundle, s.containerdConfig(t))
}

// debianContainerd is the oldest that is supported, with the runc of its own time.
func (s *server) debianContainerd(t *testing.T) {
	t.Helper()
	programs := programDir(t, "V6NODE_RUNTIMES", "../.cache/runtimes", "debian-containerd/usr/bin/containerd", "debian-containerd/usr/sbin/runc")
	bin := filepath.Join(programs, "debian-containerd", "usr", "bin")
	s.runContainerd(t, filepath.Join(bin, "containerd"), bin+":"+filepath.Join(programs, "debian-containerd", "usr", "sbin"), s.oldContainerdConfig(t))
}

func (s *server) runContainerd(t *testing.T, program, path string, config []byte) {
	t.Helper()
	file := filepath.Join(s.dir, "config.toml")
	if err := os.MkdirAll(filepath.Join(s.dir, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s.command = func() *exec.Cmd {
		cmd := exec.Command(program, "--config", file)
		if s.w.user != nil {
			// As the manuals of rootless containers have it.
			cmd = exec.Command(filepath.Join(s.w.programs.Bundle, "rootlesskit"), "--state-dir="+filepath.Join(s.dir, "rk"), "--net=host",
				"--copy-up=/run", "--copy-up=/var/lib", "--propagation=rslave",
				"sh", "-c", `rm -rf /run/containerd /run/runc /var/lib/cni; exec "$0" --config "$1"`, program, file)
		}
		cmd.Env = append(os.Environ(), "TMPDIR="+s.w.tmp(), "PATH="+path+":"+os.Getenv("PATH"))
		return cmd
	}
}

// adjustsOOMScore tells whether this machine lets anybody lower an OOM score.
func adjustsOOMScore(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var bounding uint64
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			if _, err := fmt.Sscanf(strings.TrimSpace(text), "%x", &bounding); err != nil {
				t.Fatal(err)
			}
		}
	}
	return bounding&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// containerdConfig is what a careful administrator of this machine would write.
func (s *server) containerdConfig(t *testing.T) []byte {
	t.Helper()
	return fmt.Appendf(nil, `version = 3
root = %q
state = %q
imports = []

[grpc]
  address = %q
[ttrpc]
  address = %q

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = %q

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q

[plugins."io.containerd.cri.v1.images".registry]
  config_path = %q

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = %t
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    # Else containerd looks for the plugin "loopback" of the CNI project.
    use_internal_loopback = true
    bin_dirs = [%q]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      Root = %q

[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`,
		filepath.Join(s.dir, "root"), filepath.Join(s.dir, "state"), s.socket(), s.socket()+".ttrpc", filepath.Join(s.dir, "s"),
		s.pause, s.certsDir(), !adjustsOOMScore(t), s.binDir, s.confDir, filepath.Join(s.dir, "runc"), filepath.Join(s.dir, "opt"))
}

// certsDir is where the runtime finds mirrors and certificates of registries.
func (s *server) certsDir() string { return filepath.Join(s.dir, "certs.d") }

// oldContainerdConfig says the same to containerd 1.6.
func (s *server) oldContainerdConfig(t *testing.T) []byte {
	t.Helper()
	return fmt.Appendf(nil, `version = 2
root = %q
state = %q
imports = []
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
  address = %q
[ttrpc]
  address = %q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = %t
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = %q
`,
		filepath.Join(s.dir, "root"), filepath.Join(s.dir, "state"), s.socket(), s.socket()+".ttrpc",
		s.pause, !adjustsOOMScore(t), s.certsDir(), s.binDir, s.confDir, filepath.Join(s.dir, "runc"))
}
