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
		// The parents of the sandboxes' cgroups, which no runtime removes.
		parents, err := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent())
		if err != nil {
			tb.Error(err)
		}
		for _, p := range append(parents, "/sys/fs/cgroup"+cgroupParent()) {
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				tb.Error(err)
			}
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

func cgroupParent() string { return fmt.Sprintf("/v6e-%d", os.Getpid()) }

func sandboxConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "v6e", Uid: name},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: cgroupParent(),
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
	if err := proc.held.Signal(unix.SIGKILL); err != nil {
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

func TestRestartedNodeAdoptsItsContainerd(t *testing.T) {
	cfg := testConfig(t)
	ctx := t.Context()
	first := startNode(t, cfg)
	pid, sb := first.PID(), first.sandbox(ctx, "kept")
	first.leave()
	second := startNode(t, cfg)
	if second.PID() != pid {
		t.Errorf("process %d before, %d after", pid, second.PID())
	}
	if !second.ready(ctx, sb) {
		t.Error("the sandbox is not ready after the node was restarted")
	}
}

func TestContainerdIsFoundByItsSocketWhenTheRecordIsLost(t *testing.T) {
	cfg := testConfig(t)
	ctx := t.Context()
	first := startNode(t, cfg)
	pid, sb := first.PID(), first.sandbox(ctx, "kept")
	first.leave()
	if err := os.Remove(first.layout.record); err != nil {
		t.Fatal(err)
	}
	second := startNode(t, cfg)
	if second.PID() != pid || !second.ready(ctx, sb) {
		t.Errorf("process %d before, %d after", pid, second.PID())
	}
}

func TestOutdatedContainerdStaysWhileASandboxLivesAndIsReplacedAfter(t *testing.T) {
	cfg := testConfig(t)
	ctx := t.Context()
	first := startNode(t, cfg)
	pid, sb := first.PID(), first.sandbox(ctx, "kept")
	first.leave()
	// The same programs in another place are another configuration.
	upgraded := t.TempDir()
	for _, name := range []string{containerdName, shimName, runcName, pauseName} {
		if err := os.Symlink(filepath.Join(cfg.Bundle.Dir, name), filepath.Join(upgraded, name)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if cfg.Bundle, err = FindBundle(upgraded); err != nil {
		t.Fatal(err)
	}
	second := startNode(t, cfg)
	if second.PID() != pid || !second.ready(ctx, sb) {
		t.Fatalf("with a living sandbox: process %d before, %d after", pid, second.PID())
	}
	another := second.sandbox(ctx, "another")
	second.remove(ctx, sb)
	second.remove(ctx, another)
	second.leave()
	third := startNode(t, cfg)
	if third.PID() == pid {
		t.Error("an idle outdated containerd was not replaced")
	}
	third.remove(ctx, third.sandbox(ctx, "new"))
}

func TestSecondNodeWithTheSameDirectoriesIsRefused(t *testing.T) {
	cfg := testConfig(t)
	startNode(t, cfg)
	for name, change := range map[string]func(*Config){
		"both":  func(*Config) {},
		"root":  func(c *Config) { c.State += "-other" },
		"state": func(c *Config) { c.Root += "-other" },
	} {
		other := cfg
		change(&other)
		d, err := Start(t.Context(), other)
		if !errors.Is(err, ErrInUse) {
			t.Errorf("%s: %v", name, err)
		}
		if d != nil {
			t.Errorf("%s: a second node has the directories", name)
		}
	}
}

func TestContainerdHasItsOwnSession(t *testing.T) {
	n := startNode(t, testConfig(t))
	sid, err := unix.Getsid(n.PID())
	if err != nil {
		t.Fatal(err)
	}
	if sid != n.PID() {
		t.Errorf("containerd %d belongs to session %d", n.PID(), sid)
	}
}

func TestSocketsAndLogArePrivate(t *testing.T) {
	n := startNode(t, testConfig(t))
	for _, path := range []string{n.layout.socket, n.layout.ttrpc, n.layout.log, n.layout.config, n.layout.record} {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o177 != 0 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
	}
}

func TestLongStateDirectoryGetsShortSockets(t *testing.T) {
	cfg := testConfig(t)
	cfg.State = filepath.Join(filepath.Dir(cfg.State), strings.Repeat("long", 30), "state")
	n := startNode(t, cfg)
	if !n.layout.shortPath || len(n.layout.socket) > 107 {
		t.Fatalf("socket %s", n.layout.socket)
	}
	ctx := t.Context()
	n.remove(ctx, n.sandbox(ctx, "one"))
	if stopped, err := n.Stop(ctx); !stopped || err != nil {
		t.Fatalf("Stop = %v, %v", stopped, err)
	}
	if _, err := os.Lstat(n.layout.sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the short directory after Stop: %v", err)
	}
}

func TestPauseImageIsPinnedAndOlderOnesGo(t *testing.T) {
	n := startNode(t, testConfig(t))
	ctx := t.Context()
	older, err := newPauseImage([]byte("another program"), "amd64", pauseUser)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.client.installPause(ctx, older); err != nil {
		t.Fatal(err)
	}
	if err := n.client.installPause(ctx, n.pause); err != nil {
		t.Fatal(err)
	}
	r, err := n.client.image.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range r.GetImages() {
		if i.GetId() == n.pause.config.digest && !i.GetPinned() {
			t.Errorf("%v is not pinned", i.GetRepoTags())
		}
	}
	n.remove(ctx, n.sandbox(ctx, "one"))
}

func TestContainerdThatCannotStartIsReportedWithItsReason(t *testing.T) {
	cfg := testConfig(t)
	dir := t.TempDir()
	cfg.Bundle.Containerd = filepath.Join(dir, containerdName)
	if err := os.WriteFile(cfg.Bundle.Containerd, []byte("#!/bin/sh\necho the disk is made of cheese >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "made of cheese") {
		t.Errorf("error: %v", err)
	}
}
