package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/node/health"
)

// busy is a node that has everything that can be measured.
type busy struct{}

func (busy) Measure(context.Context) *Measurement {
	all := Resources{Runs: 4, Memory: 1 << 30, Pids: 100, CPUs: 1.5, Devices: map[string]int64{"nvidia.com/gpu": 2}}
	return &Measurement{
		Runs:      map[string]int{"queued": 2, "running": 1},
		Admission: Admission{Queued: 2, OldestWait: 90 * time.Second, Budget: all, Used: Resources{Runs: 1, CPUs: .5, Devices: all.Devices}},
		Living: []Run{{Run: "7", Task: "3", Started: time.Unix(1000, 0), CPU: 1500 * time.Millisecond, Memory: 64 << 20,
			MemoryLimit: 1 << 28, Pids: 3, PidsLimit: 10, Read: 1, Written: 2}},
		Session: Session{LoggedIn: true, Connected: true, Connections: 3, Synced: time.Unix(2000, 0)},
	}
}

func testServer(t *testing.T, m *health.Monitor) (*Server, http.Handler) {
	t.Helper()
	r := NewRecorder(Kinds{Outcomes: map[string]string{"completed": "completed", "memory": "crashed"}, Events: []string{"exited"}})
	r.Collected("image", 5)
	s := NewServer(Options{Recorder: r, Source: busy{}, Health: m, Version: "v1", Log: slog.New(slog.DiscardHandler)})
	h, err := s.handler(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, h
}

func get(t *testing.T, h http.Handler, path, accept string) (int, string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, path, nil)
	req.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

// stuckMonitor has one loop that stands still and one condition that is not met.
func stuckMonitor() *health.Monitor {
	now := time.Unix(0, 1)
	m := health.New(func() time.Time { return now })
	m.Loop("turning", time.Minute).Beat()
	now = now.Add(time.Hour)
	m.Require("door", func(context.Context) error { return errors.New("it is shut") })
	return m
}

// document is one row of the manual's table, or one exported metric.
type document struct{ kind, labels string }

func TestTheManualListsEveryMetricAndNoOther(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]document{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(v6node_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*) ?\\|").FindAllStringSubmatch(string(text), -1) {
		var labels []string
		for _, l := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		documented[m[1]] = document{m[2], strings.Join(labels, ",")}
	}
	s, _ := testServer(t, stuckMonitor())
	reg, err := s.registry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exported := 0
	for _, f := range families {
		name := f.GetName()
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		exported++
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got := document{strings.ToLower(f.GetType().String()), strings.Join(labels, ",")}
		if want, ok := documented[name]; !ok || got != want {
			t.Errorf("%s is exported as %v, the manual has %v", name, got, want)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("the manual has %s, which is not exported", name)
	}
	if exported < 40 {
		t.Errorf("only %d metrics are exported", exported)
	}
}

func TestValuesAreInBaseUnits(t *testing.T) {
	s, h := testServer(t, health.New(nil))
	s.o.Recorder.Finished("memory", 2*time.Second)
	s.o.Recorder.Pulled(100, time.Second, nil)
	s.o.Recorder.Pulled(0, time.Second, errors.New("no"))
	code, text := get(t, h, "/metrics", "")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	for _, want := range []string{
		`v6node_runs{state="queued"} 2`,
		`v6node_run_cpu_seconds_total{run="7",task="3"} 1.5`,
		`v6node_run_memory_limit_bytes{run="7",task="3"} 2.68435456e+08`,
		`v6node_queue_oldest_wait_seconds 90`,
		`v6node_server_reconnects_total 2`,
		`v6node_budget_cpus 1.5`,
		`v6node_used_memory_bytes 0`,
		`v6node_runs_finished_total{reason="memory",status="crashed"} 1`,
		`v6node_runs_finished_total{reason="completed",status="completed"} 0`,
		`v6node_run_duration_seconds_sum 2`,
		`v6node_image_pulls_total{result="failed"} 1`,
		`v6node_image_pull_bytes_total 100`,
		`v6node_gc_freed_bytes_total{kind="image"} 5`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("there is no line %s", want)
		}
	}
}

func TestHealthIsToldAsTextOrJSON(t *testing.T) {
	_, h := testServer(t, stuckMonitor())
	for _, want := range []struct{ path, word, line string }{
		{"/healthz", "not healthy\n", "turning: stuck: no progress for 1h0m0s\n"},
		{"/readyz", "not ready\n", "door: it is shut\n"},
	} {
		code, text := get(t, h, want.path, "*/*")
		if code != http.StatusServiceUnavailable || text != want.word+want.line {
			t.Errorf("%s: %d %q", want.path, code, text)
		}
		code, text = get(t, h, want.path, "text/plain;q=0.5, application/json")
		var rep health.Report
		if err := json.Unmarshal([]byte(text), &rep); err != nil || code != http.StatusServiceUnavailable || rep.OK || len(rep.Items) != 1 || rep.Items[0].Message == "" {
			t.Errorf("%s as JSON: %d %q", want.path, code, text)
		}
	}
	_, h = testServer(t, health.New(nil))
	if code, text := get(t, h, "/readyz", ""); code != http.StatusOK || text != "ready\n" {
		t.Errorf("%d %q", code, text)
	}
}

func TestAddressesThatOthersCanReachAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:9464": "127.0.0.1:9464", "[::1]:9464": "[::1]:9464", "localhost:1": "127.0.0.1:1", "127.8.8.8:65535": "127.8.8.8:65535",
		"unix:///run/v6node/m.sock": "unix:///run/v6node/m.sock",
	} {
		if a, err := ParseAddress(text); err != nil || a.String() != want {
			t.Errorf("%s: %v %v", text, a, err)
		}
	}
	for text, want := range map[string]string{
		"0.0.0.0:9464": "can be reached from other machines", "[::]:9464": "can be reached", "10.0.0.5:9464": "can be reached", ":9464": "is not an IP address",
		"node.example.org:9464": "is not an IP address", "127.0.0.1": "is not an address", "127.0.0.1:0": "is not a port", "127.0.0.1:http": "is not a port",
		"unix://relative": "the whole path", "unix:///a/../b": "the whole path", "": "is not an address",
		"unix:///" + strings.Repeat("a", 200): "may have 107",
	} {
		if _, err := ParseAddress(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:9464", "unix:///a", "[::1%lo]:1", "localhost:1", "[::ffff:127.0.0.1]:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			return
		}
		if b, err := ParseAddress(a.String()); err != nil || a != b {
			t.Errorf("%q becomes %q, which becomes %q: %v", text, a, b, err)
		}
		if a.network == "tcp" {
			if tcp, err := net.ResolveTCPAddr("tcp", a.address); err != nil || !tcp.IP.IsLoopback() {
				t.Errorf("%q is served at %v: %v", text, tcp, err)
			}
		}
	})
}

// serve serves at the address until the returned function is called, which
// returns Serve's error.
func serve(t *testing.T, a Address) (stop func() error) {
	t.Helper()
	l, err := Listen(a)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := testServer(t, health.New(nil))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	return func() error { cancel(); return <-ended }
}

func TestAUnixSocketServesItsGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	a := Address{"unix", path}
	// What a killed process left is in nobody's way.
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	stop := serve(t, a)
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Body.Close() != nil || !strings.Contains(string(body), "v6node_build_info") {
		t.Errorf("%v %.100s", err, body)
	}
	if _, err := Listen(a); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("a second listener: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(a); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("in the place of a file: %v", err)
	}
}

func TestServingThatBreaksIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ := testServer(t, health.New(nil))
	if err := s.Serve(t.Context(), l); err == nil {
		t.Error("no error")
	}
}

func TestANilRecorderCountsNothing(*testing.T) {
	var r *Recorder
	r.Event("x")
	r.Finished("x", 1)
	r.Delivered("x", 1)
	r.DeliveryFailed()
	r.Phase(PhaseStart, 1)
	r.Looked(1, nil)
	r.Pulled(1, 1, nil)
	r.Converted(1, 1, nil)
	r.Collected("x", 1)
}
