//go:build integration

package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// node is one v6node's use of an embedded containerd.
type node struct {
	*Containerd
	tb   testing.TB
	end  context.CancelFunc
	done chan struct{}
}

func testConfig(tb testing.TB) Config {
	tb.Helper()
	bundle, err := FindBundle(os.Getenv("V6NODE_BUNDLE"), "../../bundle")
	if err != nil {
		tb.Skip(err)
	}
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "v6e-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			if b, err := os.ReadFile(filepath.Join(dir, "state", "containerd.log")); err == nil {
				tb.Logf("containerd.log:\n%s", b)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Bundle: bundle, PluginBinary: self,
		CNIConfList: []byte(testConfList), CNIConfName: "00-test.conflist", Log: slog.New(slog.NewTextHandler(testWriter{tb}, nil)),
	}
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.Log(string(bytes.TrimSpace(b)))
	return len(b), nil
}

// startNode starts and supervises a containerd; at the end of the test all its
// sandboxes are removed and it is stopped.
func startNode(tb testing.TB, cfg Config) *node {
	tb.Helper()
	d, err := Start(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Containerd: d, tb: tb, end: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		if err := d.Run(ctx); err != nil {
			tb.Error(err)
		}
	}()
	tb.Cleanup(n.close)
	return n
}

func (n *node) close() {
	defer n.leave()
	if n.isClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.client.waitReady(ctx); err != nil {
		n.tb.Error(err)
	}
	list, err := n.client.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		n.tb.Error(err)
	}
	for _, s := range list.GetItems() {
		n.remove(ctx, s.Id)
	}
	if stopped, err := n.Stop(ctx); !stopped || err != nil {
		n.tb.Errorf("Stop = %v, %v", stopped, err)
	}
}

// leave ends this node's supervision and leaves its containerd running.
func (n *node) leave() {
	n.end()
	<-n.done
	if err := n.Detach(); err != nil {
		n.tb.Error(err)
	}
}

func sandboxConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "v6e", Uid: name},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: fmt.Sprintf("/v6e-%d", os.Getpid()),
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func (n *node) sandbox(ctx context.Context, name string) string {
	n.tb.Helper()
	r, err := n.client.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandboxConfig(name)})
	if err != nil {
		n.tb.Fatal(err)
	}
	return r.PodSandboxId
}

func (n *node) container(ctx context.Context, sandbox, name string) string {
	n.tb.Helper()
	r, err := n.client.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: sandbox, SandboxConfig: sandboxConfig(name), Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: n.pause.ref()},
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
				NoNewPrivs:       true, ReadonlyRootfs: true,
				Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			}},
		}})
	if err != nil {
		n.tb.Fatal(err)
	}
	return r.ContainerId
}

func (n *node) start(ctx context.Context, container string) {
	n.tb.Helper()
	if _, err := n.client.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container}); err != nil {
		n.tb.Fatal(err)
	}
}

func (n *node) remove(ctx context.Context, sandbox string) {
	n.tb.Helper()
	if _, err := n.client.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		n.tb.Error(err)
	}
	if _, err := n.client.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		n.tb.Error(err)
	}
}

func (n *node) ready(ctx context.Context, sandbox string) bool {
	n.tb.Helper()
	r, err := n.client.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: sandbox})
	if err != nil {
		n.tb.Fatal(err)
	}
	return r.GetStatus().GetState() == cri.PodSandboxState_SANDBOX_READY
}

// left lists the processes and mounts that name a directory.
func left(tb testing.TB, dir string) []string {
	tb.Helper()
	var found []string
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range cmdlines {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
			found = append(found, f+": "+string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return found
}

func TestSandboxRunsWithoutARegistryAndStopLeavesNothing(t *testing.T) {
	cfg := testConfig(t)
	n := startNode(t, cfg)
	ctx := t.Context()
	sb := n.sandbox(ctx, "one")
	c := n.container(ctx, sb, "one")
	n.start(ctx, c)
	if stopped, err := n.Stop(ctx); stopped || err != nil {
		t.Fatalf("Stop with a living sandbox = %v, %v", stopped, err)
	}
	if !n.ready(ctx, sb) {
		t.Fatal("the sandbox did not survive a refused Stop")
	}
	n.remove(ctx, sb)
	if stopped, err := n.Stop(ctx); !stopped || err != nil {
		t.Fatalf("Stop without sandboxes = %v, %v", stopped, err)
	}
	if found := left(t, filepath.Dir(cfg.State)); len(found) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(found, "\n"))
	}
	if _, err := os.Lstat(n.layout.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after Stop: %v", err)
	}
}

func TestKilledContainerdStartsAgainAndSandboxStaysReady(t *testing.T) {
	n := startNode(t, testConfig(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sb := n.sandbox(ctx, "survivor")
	c := n.container(ctx, sb, "survivor")
	n.start(ctx, c)
	before := n.PID()
	n.mu.Lock()
	proc := n.proc
	n.mu.Unlock()
	if err := proc.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-proc.exited
	began := time.Now()
	if err := n.client.waitReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("CRI answers again %v after the end of containerd", time.Since(began))
	if after := n.PID(); after == before || after == 0 {
		t.Errorf("process before %d, after %d", before, after)
	}
	if !n.ready(ctx, sb) {
		t.Error("the sandbox is not ready after the restart")
	}
	s, err := n.client.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c})
	if err != nil || s.GetStatus().GetState() != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("container after the restart: %v, %v", s.GetStatus().GetState(), err)
	}
}
