package runtime

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const testDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func testSandbox() *SandboxSpec {
	return &SandboxSpec{
		Name: "run-7", Namespace: "vantage6", UID: "u", Hostname: "h", LogDirectory: "/tmp/logs",
		CgroupParent: "/v6node/n/7", Labels: map[string]string{"ai.vantage6.run": "7", labelPodName: "forged"},
		Resources: Resources{MemoryLimit: 64 << 20, CPUQuota: 50_000},
	}
}

func testContainer() *ContainerSpec {
	return &ContainerSpec{
		Name: "algorithm", Image: "example.org/a@" + testDigest, LogPath: "0.log",
		Mounts: []Mount{{HostPath: "/data", ContainerPath: "/in", ReadOnly: true}, {HostPath: "/out", ContainerPath: "/out"}},
		Env:    []EnvVar{{"A", "1=2"}},
		Labels: map[string]string{"ai.vantage6.run": "7"},
	}
}

// startOne makes a running container on the fake.
func startOne(t testing.TB, c *Client, s *SandboxSpec) (sandbox, container string) {
	t.Helper()
	sandbox, err := c.RunSandbox(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	container, err = c.CreateContainer(t.Context(), sandbox, testContainer(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.StartContainer(t.Context(), container); err != nil {
		t.Fatal(err)
	}
	return sandbox, container
}

func TestEverySecurityFieldIsSentOnPodAndContainer(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	for _, appArmor := range []bool{false, true} {
		info := c.Info()
		info.AppArmor = appArmor
		c.info.Store(&info)
		s := testSandbox()
		s.Attempt = map[bool]uint32{false: 0, true: 1}[appArmor]
		sandbox, container := startOne(t, c, s)

		pod := f.sandboxes[sandbox].Config
		psc := pod.Linux.SecurityContext
		cc := f.containers[container].req.Config
		csc := cc.Linux.SecurityContext

		if psc.Privileged || csc.Privileged || cc.Tty || cc.Stdin {
			t.Error("privileged, a terminal or standard input")
		}
		for name, p := range map[string]*cri.SecurityProfile{"pod": psc.Seccomp, "container": csc.Seccomp} {
			if p == nil || p.ProfileType != cri.SecurityProfile_RuntimeDefault {
				t.Errorf("%s: seccomp is %v", name, p)
			}
		}
		for name, p := range map[string]*cri.SecurityProfile{"pod": psc.Apparmor, "container": csc.Apparmor} {
			if (p != nil) != appArmor || p.GetProfileType() != cri.SecurityProfile_RuntimeDefault {
				t.Errorf("%s: AppArmor is %v on a host where it is %v", name, p, appArmor)
			}
		}
		want := &cri.NamespaceOption{Network: cri.NamespaceMode_POD, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD}
		if !proto.Equal(psc.NamespaceOptions, want) || !proto.Equal(csc.NamespaceOptions, want) {
			t.Errorf("namespaces: pod %v, container %v", psc.NamespaceOptions, csc.NamespaceOptions)
		}
		if !slices.Equal(csc.Capabilities.DropCapabilities, []string{"ALL"}) || len(csc.Capabilities.AddCapabilities) != 0 || len(csc.Capabilities.AddAmbientCapabilities) != 0 {
			t.Errorf("capabilities %v", csc.Capabilities)
		}
		if !csc.NoNewPrivs || !csc.ReadonlyRootfs || !psc.ReadonlyRootfs {
			t.Error("new privileges, or a writable root file system")
		}
		for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/scsi", "/proc/acpi"} {
			if !slices.Contains(csc.MaskedPaths, p) {
				t.Errorf("%s is not masked", p)
			}
		}
		for _, p := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq"} {
			if !slices.Contains(csc.ReadonlyPaths, p) {
				t.Errorf("%s is not read-only", p)
			}
		}
		if pod.Linux.CgroupParent != "/v6node/n/7" {
			t.Errorf("cgroup parent %q", pod.Linux.CgroupParent)
		}
		if !proto.Equal(f.containers[container].req.SandboxConfig, pod) {
			t.Error("the container was created with another sandbox configuration than the sandbox")
		}
		if pod.DnsConfig == nil || len(pod.DnsConfig.Servers) != 0 || len(pod.DnsConfig.Options) == 0 {
			t.Errorf("DNS %v would bring the host's resolv.conf into the sandbox", pod.DnsConfig)
		}
		if pod.Linux.Resources.MemoryLimitInBytes != 64<<20 || pod.Linux.Resources.CpuPeriod != 100_000 {
			t.Errorf("resources %v", pod.Linux.Resources)
		}
	}
}

func TestContainersCarryTheLabelsThatCrictlShows(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	sandbox, container := startOne(t, c, testSandbox())
	for name, labels := range map[string]map[string]string{"sandbox": f.sandboxes[sandbox].Config.Labels, "container": f.containers[container].req.Config.Labels} {
		if labels[labelPodName] != "run-7" || labels[labelPodNamespace] != "vantage6" || labels[labelPodUID] != "u" || labels["ai.vantage6.run"] != "7" {
			t.Errorf("%s: %v", name, labels)
		}
	}
	if got := f.containers[container].req.Config.Labels[labelContainerName]; got != "algorithm" {
		t.Errorf("container name label %q", got)
	}
}

func TestReadOnlyMountsAreRecursiveWhereTheHandlerCan(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	m := f.containers[id].req.Config.Mounts
	if !m[0].Readonly || !m[0].RecursiveReadOnly || m[1].Readonly || m[1].RecursiveReadOnly {
		t.Errorf("mounts %v", m)
	}
	if m[0].Propagation != cri.MountPropagation_PROPAGATION_PRIVATE {
		t.Errorf("propagation %v", m[0].Propagation)
	}
	s := testSandbox()
	s.RuntimeHandler, s.Attempt = "other", 1
	_, id = startOne(t, c, s)
	if m := f.containers[id].req.Config.Mounts[0]; !m.Readonly || m.RecursiveReadOnly {
		t.Errorf("mount %v with a handler that cannot", m)
	}
}

func TestWhatCannotBeAppliedIsRefusedBeforeItIsSent(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	adj := int64(2000)
	for name, change := range map[string]func(*SandboxSpec){
		"no name":               func(s *SandboxSpec) { s.Name = "" },
		"no cgroup":             func(s *SandboxSpec) { s.CgroupParent = "" },
		"slice for cgroupfs":    func(s *SandboxSpec) { s.CgroupParent = "v6node-1.slice" },
		"unclean cgroup":        func(s *SandboxSpec) { s.CgroupParent = "/v6node/../../x" },
		"relative logs":         func(s *SandboxSpec) { s.LogDirectory = "logs" },
		"negative limit":        func(s *SandboxSpec) { s.Resources.MemoryLimit = -1 },
		"swap below memory":     func(s *SandboxSpec) { s.Resources.MemorySwap = 1 },
		"quota below the least": func(s *SandboxSpec) { s.Resources.CPUQuota = 10 },
		"bad cpuset":            func(s *SandboxSpec) { s.Resources.CpusetCpus = "0;rm" },
		"bad oom score":         func(s *SandboxSpec) { s.Resources.OOMScoreAdj = &adj },
	} {
		s := testSandbox()
		change(s)
		if _, err := c.RunSandbox(t.Context(), s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if n := f.calls["RunPodSandbox"]; n != 0 {
		t.Errorf("%d calls reached the runtime", n)
	}
	s := testSandbox()
	sandbox, err := c.RunSandbox(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	uid := int64(-1)
	for name, change := range map[string]func(*ContainerSpec){
		"tag":           func(k *ContainerSpec) { k.Image = "example.org/a:latest" },
		"short digest":  func(k *ContainerSpec) { k.Image = "a@sha256:abc" },
		"log outside":   func(k *ContainerSpec) { k.LogPath = "../x.log" },
		"absolute log":  func(k *ContainerSpec) { k.LogPath = "/x.log" },
		"bad variable":  func(k *ContainerSpec) { k.Env = []EnvVar{{"A=B", "secret"}} },
		"relative path": func(k *ContainerSpec) { k.Mounts = []Mount{{HostPath: "x", ContainerPath: "/x"}} },
		"root mount":    func(k *ContainerSpec) { k.Mounts = []Mount{{HostPath: "/x", ContainerPath: "/a/.."}} },
		"same place":    func(k *ContainerSpec) { k.Mounts = append(k.Mounts, Mount{HostPath: "/y", ContainerPath: "/in/"}) },
		"user":          func(k *ContainerSpec) { k.RunAsUser = &uid },
	} {
		k := testContainer()
		change(k)
		_, err := c.CreateContainer(t.Context(), sandbox, k, s)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells a value: %v", name, err)
		}
	}
}

func TestSandboxStatusTellsNetworkNamespaceAndPID(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	id, _ := startOne(t, c, testSandbox())
	s, err := c.SandboxStatus(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if s.NetNS != "/run/netns/x" || s.PID != 42 || s.Name != "run-7" || !s.Ready {
		t.Errorf("got %+v", s)
	}
}

func TestStoppingAndRemovingTwiceIsNoError(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	sandbox, container := startOne(t, c, testSandbox())
	for range 2 {
		for name, err := range map[string]error{
			"StopContainer":   c.StopContainer(t.Context(), container, time.Second),
			"RemoveContainer": c.RemoveContainer(t.Context(), container),
			"StopSandbox":     c.StopSandbox(t.Context(), sandbox),
			"RemoveSandbox":   c.RemoveSandbox(t.Context(), sandbox),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := c.ContainerStatus(t.Context(), container); !errors.Is(err, ErrNotFound) {
		t.Errorf("status of a removed container: %v", err)
	}
	if _, err := c.SandboxStatus(t.Context(), sandbox); !errors.Is(err, ErrNotFound) {
		t.Errorf("status of a removed sandbox: %v", err)
	}
}

func TestAContainerDoesNotEndBeforeItStarts(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	f.mu.Lock()
	f.containers[id].started, f.containers[id].finished = 2_000_000, 1_000_000 // as containerd says of short ones
	f.mu.Unlock()
	st, err := c.ContainerStatus(t.Context(), id)
	if err != nil || st.StartedAt != st.FinishedAt || st.FinishedAt.UnixNano() != 1_000_000 {
		t.Errorf("got %+v, %v", st, err)
	}
}

func TestAContainersMountsAndTheNamesOfItsVariablesAreTold(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	f.mu.Lock()
	f.containers[id].req.Config.Envs = []*cri.KeyValue{{Key: "TOKEN", Value: []byte("A=B")}, {Key: "INPUT_FILE", Value: []byte("c2VjcmV0")}, {Key: "EMPTY"}}
	f.mu.Unlock()
	st, err := c.ContainerStatus(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Mount{{HostPath: "/data", ContainerPath: "/in", ReadOnly: true}, {HostPath: "/out", ContainerPath: "/out"}}; !slices.Equal(st.Mounts, want) {
		t.Errorf("mounts %+v", st.Mounts)
	}
	if want := []string{"EMPTY", "INPUT_FILE", "PKG_NAME", "TOKEN"}; !slices.Equal(st.EnvNames, want) {
		t.Errorf("variables %q", st.EnvNames)
	}
}

func TestListingsSelectByLabel(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	startOne(t, c, testSandbox())
	for want, labels := range []map[string]string{{"ai.vantage6.run": "8"}, {"ai.vantage6.run": "7"}} {
		s, err := c.ListSandboxes(t.Context(), labels)
		if err != nil || len(s) != want {
			t.Errorf("%v: %d sandboxes, %v", labels, len(s), err)
		}
		k, err := c.ListContainers(t.Context(), labels)
		if err != nil || len(k) != want {
			t.Errorf("%v: %d containers, %v", labels, len(k), err)
		}
	}
}

func TestACallWaitsForARestartingRuntime(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	f.stop()
	done := make(chan error, 1)
	go func() {
		_, err := c.ListSandboxes(t.Context(), nil)
		done <- err
	}()
	f.start(t)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	f.stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.ListSandboxes(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestARuntimeThatStaysAwayIsAnErrorInTime(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c, err := Dial(t.Context(), f.path, Options{CallTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.stop()
	if _, err := c.ListSandboxes(t.Context(), nil); !errors.Is(err, ErrNotReady) {
		t.Fatalf("got %v, want ErrNotReady", err)
	}
}

func TestErrorsAreOneBoundedLine(t *testing.T) {
	err := callError(t.Context(), "do it", 0, status.Error(codes.Unknown, "bad\x1b[31m\r\nthings "+strings.Repeat("x", 5000)+"\xff"))
	if msg := err.Error(); strings.ContainsAny(msg, "\r\n\x1b") || len(msg) > 1200 {
		t.Errorf("got %q", msg)
	}
	if err := callError(t.Context(), "do it", 0, status.Error(codes.Unknown, "write /x: no space left on device")); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsDoNotPrint(t *testing.T) {
	a := &Auth{Username: "u", Password: "hunter2", IdentityToken: "hunter2"}
	if strings.Contains(a.String()+a.GoString(), "hunter2") {
		t.Error("the password is printed")
	}
}

// BenchmarkOverhead compares the three calls of a start made by the client with
// the same three made directly, on a runtime that does nothing.
func BenchmarkOverhead(b *testing.B) {
	f := newFake(b)
	f.start(b)
	c := dialFake(b, f)
	s, k := testSandbox(), testContainer()
	clear := func(sandbox string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.sandboxes, sandbox)
		f.containers = map[string]*fakeContainer{}
	}
	b.Run("client", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sandbox, container := startOne(b, c, s)
			_ = container
			clear(sandbox)
		}
	})
	b.Run("direct", func(b *testing.B) {
		b.ReportAllocs()
		sandboxConfig, containerConfig := c.sandboxConfig(s), c.containerConfig(k, s)
		for b.Loop() {
			r, err := c.rt.RunPodSandbox(b.Context(), &cri.RunPodSandboxRequest{Config: sandboxConfig})
			if err != nil {
				b.Fatal(err)
			}
			k, err := c.rt.CreateContainer(b.Context(), &cri.CreateContainerRequest{PodSandboxId: r.PodSandboxId, Config: containerConfig, SandboxConfig: sandboxConfig})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.rt.StartContainer(b.Context(), &cri.StartContainerRequest{ContainerId: k.ContainerId}); err != nil {
				b.Fatal(err)
			}
			clear(r.PodSandboxId)
		}
	})
}
