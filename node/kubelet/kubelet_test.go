package kubelet

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/runtime"
)

// pods is a runtime with these sandboxes.
type pods []*runtime.Sandbox

func (p pods) ListSandboxes(context.Context, map[string]string) ([]*runtime.Sandbox, error) {
	return p, nil
}

func pod(ready bool, labels ...string) *runtime.Sandbox {
	s := &runtime.Sandbox{Ready: ready, Labels: map[string]string{labelUID: "u", labelNamespace: "kube-system", labelName: "coredns-1"}}
	for _, l := range labels {
		s.Labels[l] = "x"
	}
	return s
}

func TestALivingPodOfAKubeletIsRefused(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "c.sock")
	for name, c := range map[string]struct {
		pods   pods
		refuse bool
	}{
		"no pod":                {nil, false},
		"a kubelet's":           {pods{pod(true, "ai.vantage6.run"), pod(true)}, true},
		"a node's":              {pods{pod(true, "ai.vantage6.node")}, false},
		"a kubelet's, ended":    {pods{pod(false)}, false},
		"one without its label": {pods{{Ready: true, Labels: map[string]string{"app": "x"}}}, false},
	} {
		err := Refuse(t.Context(), c.pods, "unix://"+socket)
		if errors.Is(err, ErrFound) != c.refuse {
			t.Errorf("%s: %v", name, err)
		}
		if c.refuse && (!strings.Contains(err.Error(), `"kube-system/coredns-1"`) || !strings.Contains(err.Error(), Fix)) {
			t.Errorf("%s: the sentence is %q", name, err)
		}
	}
	if n, err := Left(t.Context(), pods{pod(false), pod(true), pod(false, "ai.vantage6.node")}); n != 1 || err != nil {
		t.Errorf("%d pods are left (%v), want 1", n, err)
	}
}

// host is a directory with /proc and /etc of a machine.
type host struct {
	t   *testing.T
	dir string
}

func newHost(t *testing.T) host { return host{t, t.TempDir()} }

func (h host) write(path, text string) {
	h.t.Helper()
	file := filepath.Join(h.dir, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// run makes a process with a root directory that is this machine's.
func (h host) run(pid, comm string, args ...string) {
	h.t.Helper()
	h.write("proc/"+pid+"/comm", comm+"\n")
	h.write("proc/"+pid+"/cmdline", strings.Join(args, "\x00")+"\x00")
	if err := os.Symlink("/", filepath.Join(h.dir, "proc", pid, "root")); err != nil {
		h.t.Fatal(err)
	}
}

func nobody(string) (map[uint32]bool, error) { return nil, nil }

func TestAProcessIsRefusedWhenItsFlagsOrItsConfigurationNameTheSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	link := filepath.Join(dir, "link.sock")
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.yaml")
	other := filepath.Join(dir, "other.yaml")
	for file, text := range map[string]string{config: "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix://" + socket + "\n", other: "kind: KubeletConfiguration\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		comm string
		args []string
		want bool
	}{
		{"flag with =", "kubelet", []string{"/usr/bin/kubelet", "--v=2", "--container-runtime-endpoint=unix://" + socket}, true},
		{"flag and value", "kubelet", []string{"/usr/bin/kubelet", "--container-runtime-endpoint", socket}, true},
		{"another path to the same socket", "kubelet", []string{"kubelet", "--container-runtime-endpoint=unix://" + link}, true},
		{"configuration", "kubelet", []string{"kubelet", "--config=" + config}, true},
		{"the flag wins", "kubelet", []string{"kubelet", "--config=" + config, "--container-runtime-endpoint=unix:///run/other.sock"}, false},
		{"configuration that says nothing", "kubelet", []string{"kubelet", "--config", other}, false},
		{"title of k3s", "k3s-agent", []string{"/usr/local/bin/k3s agent", "--container-runtime-endpoint=" + socket}, true},
		{"microk8s", "kubelite", []string{"/snap/microk8s/kubelite", "--container-runtime-endpoint=" + socket}, true},
		{"another program", "crictl", []string{"crictl", "--container-runtime-endpoint=" + socket}, false},
		{"a kernel thread", "kubelet", nil, false},
	} {
		h := newHost(t)
		h.run("17", c.comm, c.args...)
		if c.args == nil {
			h.write("proc/17/cmdline", "")
		}
		got := machine{root: h.dir, connected: nobody}.process(socket)
		if (got != "") != c.want || c.want && !strings.Contains(got, "process 17") {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestAProcessThatIsConnectedToTheSocketIsFound(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
		close(accepted)
	}()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if server := <-accepted; server != nil {
		defer server.Close()
	}
	peers, err := connected(socket)
	if err != nil {
		t.Skipf("the kernel does not tell: %v", err)
	}
	m := machine{root: "/", connected: connected}
	if !m.holds(os.Getpid(), peers) {
		t.Errorf("this process is connected, and was not found among %v", peers)
	}
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	if m.holds(stranger.Process.Pid, peers) {
		t.Error("process " + strconv.Itoa(stranger.Process.Pid) + " is not connected, and was found")
	}
}

func TestAKubeletThatDoesNotRunNowIsFoundByItsFiles(t *testing.T) {
	const socket = "/run/none/containerd.sock"
	for file, text := range map[string]string{
		"var/lib/kubelet/kubeadm-flags.env":    `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/none/containerd.sock --pod-infra-container-image=pause:3.9"`,
		"var/lib/kubelet/config.yaml":          "containerRuntimeEndpoint: unix:///run/none/containerd.sock\n",
		"etc/kubernetes/kubelet/config.json":   `{"containerRuntimeEndpoint": "unix:///run/none/../none/containerd.sock"}`,
		"etc/kubernetes/kubelet-config.yaml":   "containerRuntimeEndpoint: /run/none/containerd.sock\n",
		"etc/kubernetes/kubelet/unrelated.txt": "",
	} {
		h := newHost(t)
		h.write(file, text)
		want := "/" + file
		if text == "" {
			want = ""
		}
		if got := (machine{root: h.dir}).configured(socket); got != want {
			t.Errorf("%s: %q", file, got)
		}
		if got := (machine{root: h.dir}).configured("/run/another.sock"); got != "" {
			t.Errorf("%s is about another socket: %q", file, got)
		}
	}
}

func FuzzFilesOfOthers(f *testing.F) {
	f.Add("a\x00--config=/x\x00", "containerRuntimeEndpoint: unix:///x")
	f.Add("k3s server", "{")
	f.Fuzz(func(t *testing.T, cmdline, conf string) {
		h := newHost(t)
		h.run("1", "kubelet", strings.Split(cmdline, "\x00")...)
		h.write("var/lib/kubelet/config.yaml", conf)
		h.write("var/lib/kubelet/kubeadm-flags.env", cmdline)
		m := machine{root: h.dir, connected: nobody}
		_ = m.process("/run/none.sock")
		_ = m.configured("/run/none.sock")
	})
}
