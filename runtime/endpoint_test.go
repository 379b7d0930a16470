package runtime

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestDialNamesWhatIsWrongWithTheEndpoint(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// A socket file whose listener has gone, as after a crash.
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	// A datagram socket.
	gram := filepath.Join(dir, "gram.sock")
	g, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: gram, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	// HTTP/1, as the Docker socket speaks it.
	docker := filepath.Join(dir, "docker.sock")
	hl, err := net.Listen("unix", docker)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go web.Serve(hl)
	defer web.Close()
	// gRPC without CRI.
	bare := filepath.Join(dir, "bare.sock")
	bl, err := net.Listen("unix", bare)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	go srv.Serve(bl)
	defer srv.Stop()

	for _, tc := range []struct {
		endpoint string
		kind     error
		says     string
	}{
		{"tcp://127.0.0.1:1", ErrEndpoint, "tcp://"},
		{"npipe:////./pipe/x", ErrEndpoint, "unix:///"},
		{"", ErrEndpoint, "no path"},
		{"unix://", ErrEndpoint, "no path"},
		{"unix://relative.sock", ErrEndpoint, "three slashes"},
		{"run/x.sock", ErrEndpoint, "not absolute"},
		{"unix:///" + strings.Repeat("x", 120), ErrEndpoint, "107"},
		{"unix://" + dir + "/none.sock", ErrEndpointMissing, "nothing exists"},
		{"unix://" + file + "/x.sock", ErrEndpointMissing, "nothing exists"},
		{file, ErrNotSocket, "regular file"},
		{dir, ErrNotSocket, "directory"},
		{dead, ErrNotReady, "nothing listens"},
		{gram, ErrNotCRI, "datagram"},
		{docker, ErrNotCRI, "Docker"},
		{bare, ErrNotCRI, "CRI plugin"},
	} {
		c, err := Dial(t.Context(), tc.endpoint, Options{})
		if err == nil {
			c.Close()
			t.Errorf("%s: no error", tc.endpoint)
			continue
		}
		if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %q, want the kind %q and the words %q", tc.endpoint, err, tc.kind, tc.says)
		}
		if strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%s: the error spans lines: %q", tc.endpoint, err)
		}
	}
}

func TestDialWithoutPermissionIsSaidAsSuch(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	f := newFake(t)
	f.start(t)
	if err := os.Chmod(f.path, 0o600); err != nil {
		t.Fatal(err)
	}
	// The file system user of one thread is enough for connect(2); the thread
	// ends with the goroutine, because it stays locked.
	done := make(chan error)
	go func() {
		goruntime.LockOSThread()
		syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		done <- checkEndpoint(t.Context(), f.path)
	}()
	if err := <-done; !errors.Is(err, ErrPermission) {
		t.Fatalf("got %v, want ErrPermission", err)
	}
}

func TestDialReadsWhatTheRuntimeIs(t *testing.T) {
	f := newFake(t)
	f.driver = cri.CgroupDriver_SYSTEMD
	f.handlers = append(f.handlers, &cri.RuntimeHandler{Name: "crun", Features: &cri.RuntimeHandlerFeatures{UserNamespaces: true}})
	f.start(t)
	info := dialFake(t, f).Info()
	if info.Name != "fake" || info.Version != "1" || info.APIVersion != "v1" || info.Endpoint != "unix://"+f.path {
		t.Errorf("got %+v", info)
	}
	if info.CgroupDriver != Systemd {
		t.Errorf("cgroup driver %q", info.CgroupDriver)
	}
	if len(info.Handlers) != 2 || !info.Handlers[0].RecursiveReadOnly || !info.Handlers[1].UserNamespaces || info.Handlers[1].Name != "crun" {
		t.Errorf("handlers %+v", info.Handlers)
	}
}

func TestANotReadyRuntimeIsRefusedAndLaterAccepted(t *testing.T) {
	f := newFake(t)
	ready := f.conditions
	f.conditions = []*cri.RuntimeCondition{
		{Type: cri.RuntimeReady, Status: true},
		{Type: cri.NetworkReady, Reason: "NetworkPluginNotReady", Message: "cni plugin\nnot initialized"},
	}
	f.start(t)
	_, err := Dial(t.Context(), f.path, Options{})
	if !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "cni install") {
		t.Fatalf("got %v", err)
	}
	c, err := Dial(t.Context(), f.path, Options{AllowNotReady: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ready(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Fatalf("got %v", err)
	}
	f.mu.Lock()
	f.conditions = ready
	f.mu.Unlock()
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAnOldCRIVersionIsRefused(t *testing.T) {
	f := newFake(t)
	f.version.RuntimeApiVersion = "v1alpha2"
	f.start(t)
	if _, err := Dial(t.Context(), f.path, Options{}); !errors.Is(err, ErrNotCRI) {
		t.Fatalf("got %v, want ErrNotCRI", err)
	}
}

func TestContainerdsConfigurationTellsTheNetworkDirectories(t *testing.T) {
	h := readHints("containerd", map[string]string{"config": `{"cni":{"binDir":"","binDirs":["/a","/b"],"confDir":"/c"},"disableApparmor":true,
		"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}`})
	if h.confDir != "/c" || len(h.binDirs) != 2 || !h.noAppArmor || h.driver != Systemd {
		t.Errorf("got %+v", h)
	}
	if h := readHints("containerd", map[string]string{"config": "not json"}); h.confDir != "/etc/cni/net.d" {
		t.Errorf("got %+v", h)
	}
}

func TestWhatRuntimesDifferInIsReadFromWhatTheyTell(t *testing.T) {
	for name, c := range map[string]struct {
		info map[string]string
		want hints
	}{
		// 1.6 has one directory of plugins, and no CDI.
		"containerd": {map[string]string{"config": `{"cni":{"binDir":"/usr/lib/cni","confDir":"/etc/cni/net.d"},
			"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{}}}}}`},
			hints{confDir: "/etc/cni/net.d", binDirs: []string{"/usr/lib/cni"}, driver: Cgroupfs}},
		"cri-o": {nil, hints{confDir: "/etc/cni/net.d", binDirs: []string{"/opt/cni/bin"}, dropIns: true, cdi: true, minMemory: 12 << 20}},
		"other": {nil, hints{}},
	} {
		if got := readHints(name, c.info); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	for config, want := range map[string]bool{
		`{"enableCDI":true}`: true, `{"enableCDI":false,"cdiSpecDirs":["/etc/cdi"]}`: false, `{"cdiSpecDirs":["/etc/cdi"]}`: true,
	} {
		if h := readHints("containerd", map[string]string{"config": config}); h.cdi != want {
			t.Errorf("%s: CDI %v", config, h.cdi)
		}
	}
}

func TestARuntimeThatSendsNoEventsIsToldFromOneThatDoes(t *testing.T) {
	for want, none := range map[Answer]bool{Yes: false, No: true} {
		f := newFake(t)
		f.noEvents = none
		f.start(t)
		c := dialFake(t, f)
		if got := c.Info().Events; got != "" {
			t.Errorf("before anybody asks it is %q", got)
		}
		if got := c.SendsEvents(t.Context()); got != (want == Yes) || c.Info().Events != want {
			t.Errorf("got %v and %q, wanted %q", got, c.Info().Events, want)
		}
	}
}

func TestWhatARuntimeCannotDoIsRefusedBeforeItIsAsked(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	info := c.Info()
	info.MinMemory = 12 << 20
	c.info.Store(&info)
	s := testSandbox()
	sandbox, err := c.RunSandbox(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	k := testContainer()
	k.Devices = []string{"vendor.com/gpu=0"}
	if _, err := c.CreateContainer(t.Context(), sandbox, k, s); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "CDI") {
		t.Errorf("a device without CDI: %v", err)
	}
	k = testContainer()
	k.Resources.MemoryLimit = 12<<20 - 1
	if _, err := c.CreateContainer(t.Context(), sandbox, k, s); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "12 MiB") {
		t.Errorf("less than the least memory: %v", err)
	}
	s.Name, s.Resources.MemoryLimit = "run-8", 1<<20
	if _, err := c.RunSandbox(t.Context(), s); !errors.Is(err, ErrLimit) {
		t.Errorf("a sandbox with less than the least memory: %v", err)
	}
}
