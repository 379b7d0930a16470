//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/imagekit"
)

// containerd is one that an administrator runs: v6node neither starts nor
// configures it.
type containerd struct {
	w       *world
	dir     string
	cmd     *exec.Cmd
	log     *os.File
	ended   chan struct{}
	confDir string // CNI configuration
	binDir  string // CNI plugins
}

// startContainerd starts a plain containerd below the world's directory, without
// any network. Its pause image comes from the world's registry, for the default
// one would come from the Internet.
func (w *world) startContainerd(t *testing.T, name string) *containerd {
	t.Helper()
	c := &containerd{w: w, dir: filepath.Join(w.dir, name), ended: make(chan struct{})}
	c.confDir, c.binDir = filepath.Join(c.dir, "net.d"), filepath.Join(c.dir, "cni")
	for _, d := range []string{c.confDir, c.binDir, filepath.Join(c.dir, "s")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	pause, err := w.lab.Push("registry.k8s/pause", filepath.Join(w.programs.Bundle, "v6node-pause"), func(s *imagekit.Spec) { s.Path = "/pause" })
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(c.dir, "config.toml")
	if err := os.WriteFile(config, c.config(t, pause.Tag), 0o600); err != nil {
		t.Fatal(err)
	}
	if c.log, err = os.Create(filepath.Join(c.dir, "containerd.log")); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(filepath.Join(w.programs.Bundle, "containerd"), "--config", config)
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	c.cmd.Env = append(os.Environ(), "TMPDIR="+w.tmp(), "PATH="+w.programs.Bundle+":"+os.Getenv("PATH"))
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		_ = c.cmd.Wait() // how it ended is in its log
	}()
	eventually(t, func() error {
		select {
		case <-c.ended:
			t.Fatalf("containerd ended:\n%s", c.lastWords())
		default:
		}
		_, err := c.crictl(t, "version")
		return err
	})
	return c
}

// config is what a careful administrator of this machine would write.
func (c *containerd) config(t *testing.T, pause string) []byte {
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
	adjustable := bounding&(1<<unix.CAP_SYS_RESOURCE) != 0
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
		filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), c.socket(), c.socket()+".ttrpc", filepath.Join(c.dir, "s"),
		pause, !adjustable, c.binDir, c.confDir, filepath.Join(c.dir, "runc"), filepath.Join(c.dir, "opt"))
}

func (c *containerd) socket() string   { return filepath.Join(c.dir, "c.sock") }
func (c *containerd) endpoint() string { return "unix://" + c.socket() }

func (c *containerd) lastWords() string {
	b, err := os.ReadFile(c.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// stop ends containerd; it does nothing when it has ended.
func (c *containerd) stop(t *testing.T) {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-c.ended:
	case <-ctx.Done():
		t.Errorf("containerd does not end:\n%s", c.lastWords())
		_ = c.cmd.Process.Kill() // it may end just now
		<-c.ended
	}
	if t.Failed() {
		t.Logf("containerd ended like this:\n%s", c.lastWords())
	}
	if err := c.log.Close(); err != nil {
		t.Error(err)
	}
}

func (c *containerd) crictl(t testing.TB, args ...string) (string, error) {
	return c.w.crictl(t, c.endpoint(), args...)
}

// crictl runs the administrator's tool.
func (w *world) crictl(t testing.TB, endpoint string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(within(t), filepath.Join(w.programs.Bundle, "crictl"),
		append([]string{"-r", endpoint, "-i", endpoint, "-t", (10 * time.Second).String()}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), "HOME="+w.dir)
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("crictl %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// v6node runs a command of the program under test.
func (w *world) v6node(t testing.TB, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(within(t), w.programs.V6node, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// installNetwork does what the manual tells the administrator of an existing
// runtime.
func (w *world) installNetwork(t *testing.T, c *containerd) {
	t.Helper()
	if out, errOut, err := w.v6node(t, "cni", "install", "--conf-dir", c.confDir, "--bin-dir", c.binDir); err != nil {
		t.Fatalf("v6node cni install: %v\n%s%s", err, out, errOut)
	}
}

// waitNetwork waits until containerd has loaded a CNI network by itself.
func (c *containerd) waitNetwork(t *testing.T, name string) {
	t.Helper()
	eventually(t, func() error {
		out, err := c.crictl(t, "info")
		if err != nil {
			return err
		}
		var info struct {
			CNI struct {
				Networks []struct {
					Config struct{ Name string }
				}
			} `json:"cniconfig"`
		}
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			return err
		}
		var have []string
		for _, n := range info.CNI.Networks {
			have = append(have, n.Config.Name)
		}
		if !slices.Contains(have, name) {
			return fmt.Errorf("containerd has the networks %q and not %q", have, name)
		}
		return nil
	})
}
