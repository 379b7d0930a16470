//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/health"
)

func TestANodeIsWatched(t *testing.T) {
	onRuntime(t, embeddedKind, []scenario{
		{"metrics follow the runs", metricsFollow},
		{"a server that is away makes a node unready and not unhealthy", outageIsNotIllness},
		{"a runtime that hangs makes a node unready and not unhealthy", hungRuntime},
		{"the service manager is told", serviceManager},
		{"the server gets the machine's load", loadReported},
	})
}

// watched makes a node that serves its metrics at a socket.
func watched(t *testing.T, w *world, extra map[string]any) (*node, *watcher) {
	t.Helper()
	socket := filepath.Join(w.tmp(), fmt.Sprintf("m%d.sock", w.number()))
	o := nodeOptions{Extra: map[string]any{"metrics": map[string]any{"listen": "unix://" + socket}}}
	for k, v := range extra {
		o.Extra[k] = v
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return w.start(t, o), &watcher{&http.Client{Transport: tr}}
}

// watcher asks a node's endpoint.
type watcher struct{ http *http.Client }

func (w *watcher) get(t testing.TB, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, "http://node"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json, text/plain;q=0.5")
	resp, err := w.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// series returns what was scraped, by name and labels.
func (w *watcher) series(t testing.TB) map[string]float64 {
	t.Helper()
	code, text := w.get(t, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("/metrics: %d %s", code, text)
	}
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("the line %q has no number", line)
		}
		out[line[:at]] = v
	}
	return out
}

// lacking returns why /readyz says no, by condition.
func (w *watcher) lacking(t testing.TB) map[string]string {
	t.Helper()
	_, text := w.get(t, "/readyz")
	var rep health.Report
	if err := json.Unmarshal([]byte(text), &rep); err != nil {
		t.Fatalf("/readyz: %q: %v", text, err)
	}
	out := map[string]string{}
	for _, i := range rep.Items {
		if !i.OK {
			out[i.Name] = i.Message
		}
	}
	return out
}

func (w *watcher) onceReady(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		if why := w.lacking(t); len(why) > 0 {
			return fmt.Errorf("not ready: %v", why)
		}
		return nil
	})
}

func (w *watcher) healthy(t testing.TB) {
	t.Helper()
	if code, text := w.get(t, "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d %s", code, text)
	}
}

func metricsFollow(t *testing.T, w *world) {
	n, m := watched(t, w, map[string]any{"limits": map[string]any{"memory": "64m", "pids": 50}})
	m.onceReady(t)
	m.healthy(t)
	g := n.hold(t)
	id := fmt.Sprintf(`{run="%d",task="%d"}`, g.run, g.task)
	s := m.series(t)
	for name, is := range map[string]func(float64) bool{
		`v6node_runs{state="running"}`:                           func(v float64) bool { return v == 1 },
		`v6node_used_runs`:                                       func(v float64) bool { return v == 1 },
		`v6node_used_memory_bytes`:                               func(v float64) bool { return v == 64<<20 },
		`v6node_server_connected`:                                func(v float64) bool { return v == 1 },
		`v6node_image_pulls_total{result="ok"}`:                  func(v float64) bool { return v >= 1 },
		`v6node_image_pull_bytes_total`:                          func(v float64) bool { return v > 1<<20 },
		`v6node_run_phase_duration_seconds_count{phase="start"}`: func(v float64) bool { return v == 1 },
		`v6node_run_cpu_seconds_total` + id:                      func(v float64) bool { return v > 0 },
		`v6node_run_memory_bytes` + id:                           func(v float64) bool { return v > 0 && v < 64<<20 },
		`v6node_run_memory_limit_bytes` + id:                     func(v float64) bool { return v == 64<<20 },
		`v6node_run_pids` + id:                                   func(v float64) bool { return v > 1 },
		`v6node_run_pids_limit` + id:                             func(v float64) bool { return v == 50 },
		`v6node_reconcile_last_success_timestamp_seconds`:        func(v float64) bool { return v > 1.7e9 },
		`process_resident_memory_bytes`:                          func(v float64) bool { return v > 1<<20 },
	} {
		if v, ok := s[name]; !ok || !is(v) {
			t.Errorf("%s is %v (exported: %v)", name, v, ok)
		}
	}
	n.command(t, "pause")
	if why := m.lacking(t); why["intake"] == "" || len(why) != 1 {
		t.Errorf("a paused node lacks %v", why)
	}
	n.command(t, "resume")
	m.onceReady(t)
	g.release(t)
	n.finish(t, g.task)
	if e := n.call(t, "exit", map[string]any{"code": 3}); e.Status != standin.StatusCrashed {
		t.Errorf("status %s", e.Status)
	}
	eventually(t, func() error {
		s := m.series(t)
		for name, want := range map[string]float64{
			`v6node_runs_finished_total{reason="completed",status="completed"}`: 1,
			`v6node_runs_delivered_total{reason="crashed",status="crashed"}`:    1,
			`v6node_delivery_duration_seconds_count`:                            2,
			`v6node_events_total{type="removed"}`:                               2,
			`v6node_runs{state="running"}`:                                      0,
		} {
			if s[name] != want {
				return fmt.Errorf("%s is %v, not %v", name, s[name], want)
			}
		}
		for name := range s {
			if strings.Contains(name, `run="`) {
				return fmt.Errorf("%s is left of a run that is over", name)
			}
		}
		return nil
	})
}

func outageIsNotIllness(t *testing.T, w *world) {
	n, m := watched(t, w, map[string]any{"poll_interval": "1s"})
	m.onceReady(t)
	away := w.server.Fault(standin.Fault{Who: n.ID(), DropBefore: true})
	w.server.CloseSockets(n.ID())
	eventually(t, func() error {
		if why := m.lacking(t); !strings.Contains(why["server"], "last listed") {
			return fmt.Errorf("without its server it lacks %v", why)
		}
		return nil
	})
	m.healthy(t)
	if s := m.series(t); s["v6node_server_connected"] != 0 || s[`v6node_ready{condition="server"}`] != 0 || s["v6node_reconcile_failures_total"] == 0 {
		t.Errorf("connected %v, ready %v, failed looks %v", s["v6node_server_connected"], s[`v6node_ready{condition="server"}`], s["v6node_reconcile_failures_total"])
	}
	away.Remove()
	m.onceReady(t)
	eventually(t, func() error {
		if s := m.series(t); s["v6node_server_reconnects_total"] == 0 {
			return errors.New("no reconnect is counted")
		}
		return nil
	})
}

func hungRuntime(t *testing.T, w *world) {
	n, m := watched(t, w, nil)
	m.onceReady(t)
	pid := managedContainerd(t, n)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() error { return syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(func() {
		if err := goOn(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, func() error {
		if why := m.lacking(t); !strings.Contains(why["runtime"], "does not answer") {
			return fmt.Errorf("without its runtime it lacks %v", why)
		}
		return nil
	})
	m.healthy(t)
	if err := goOn(); err != nil {
		t.Fatal(err)
	}
	m.onceReady(t)
}

// managedContainerd finds the process of the node's own containerd.
func managedContainerd(t *testing.T, n *node) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(b), "\x00")
		if filepath.Base(args[0]) == "containerd" && strings.Contains(string(b), n.StateDir+"/") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("the node's containerd was not found")
	return 0
}

// serviceManager plays systemd: a datagram socket that NOTIFY_SOCKET names.
func serviceManager(t *testing.T, w *world) {
	path := filepath.Join(w.tmp(), fmt.Sprintf("notify%d", w.number()))
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(sock.Close(), os.Remove(path)); err != nil {
			t.Error(err)
		}
	})
	news := make(chan string, 1024)
	go func() {
		defer close(news)
		b := make([]byte, 4096)
		for {
			k, err := sock.Read(b)
			if err != nil {
				return
			}
			news <- string(b[:k])
		}
	}()
	expect := func(what string, before ...string) {
		t.Helper()
		for {
			select {
			case text := <-news:
				for _, no := range before {
					if strings.Contains(text, no) {
						t.Fatalf("%q was told before %q", text, what)
					}
				}
				if strings.Contains(text, what) {
					return
				}
			case <-within(t).Done():
				t.Fatalf("%q was not told", what)
			}
		}
	}
	n := w.configure(t, nodeOptions{Env: []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=400000"}})
	away := w.server.Fault(standin.Fault{Method: http.MethodPost, Path: "/token/node", DropBefore: true})
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	expect("STATUS=Not ready: server: not logged in yet", "READY=1")
	expect("EXTEND_TIMEOUT_USEC=60000000", "READY=1")
	expect("WATCHDOG=1", "READY=1")
	away.Remove()
	expect("READY=1\nSTATUS=Ready: 0 running, 0 queued")
	expect("WATCHDOG=1", "EXTEND_TIMEOUT")
	expect("WATCHDOG=1", "EXTEND_TIMEOUT")
	stop, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.Stop(stop); err != nil {
		t.Fatal(err)
	}
	expect("STOPPING=1", "READY=1")
}

func loadReported(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"prometheus": map[string]any{"enabled": true, "report_interval_seconds": 1}}})
	g := n.hold(t)
	var got map[string]any
	_, err := w.server.WaitNodeEvent(within(t), func(e standin.NodeEvent) bool {
		if e.NodeID != n.ID() || e.Name != "node_metrics_update" || len(e.Args) != 1 {
			return false
		}
		got = nil
		return json.Unmarshal(e.Args[0], &got) == nil && got["num_algorithm_containers"] == 1.0
	})
	if err != nil {
		t.Fatalf("%v; the last report is %v", err, got)
	}
	g.release(t)
	for key, is := range map[string]func(float64) bool{
		"cpu_percent": func(v float64) bool { return v > 0 && v <= 100 }, "memory_percent": func(v float64) bool { return v > 0 && v < 100 },
		"cpu_count": func(v float64) bool { return v >= 1 }, "memory_total": func(v float64) bool { return v > 1<<28 },
		"memory_available": func(v float64) bool { return v > 1<<20 },
	} {
		if v, ok := got[key].(float64); !ok || !is(v) {
			t.Errorf("%s is %v", key, got[key])
		}
	}
	if got["os"] != "posix" || got["platform"] != "linux" {
		t.Errorf("os %v, platform %v", got["os"], got["platform"])
	}
	n.finish(t, g.task)
}
