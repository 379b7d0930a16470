package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admin/admintest"
)

var renew = flag.Bool("renew", false, "write the golden files anew")

// asProgram makes this test program v6node itself.
const asProgram = "V6NODE_TEST_PROGRAM"

// program is v6node as a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// before is a moment that long ago, and a bit, so that it is shown as that.
func before(d time.Duration) time.Time { return time.Now().Add(-d - d/100).UTC() }

// hospital is a node with runs in all states.
func hospital() *admintest.Station {
	const average = "harbor.example.org/algorithms/average:1.4"
	const digest = "harbor.example.org/algorithms/average@sha256:9f2c1b5d6f0f4b0a8f4e4b1f0e6f4a3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a"
	started := before(3 * time.Minute)
	running := &admin.Run{ID: 103, Task: 52, Job: 50, Parent: 51, Organization: 4, OrganizationName: "Maastro", User: 7, Image: average, Pinned: digest,
		State: admin.Running, Attempt: 1, ReceivedAt: before(4 * time.Minute), StartedAt: started}
	finished := before(2 * time.Hour)
	crashed := &admin.Run{ID: 101, Task: 49, Job: 49, Organization: 6, Image: "ghcr.io/example/glm:2", State: admin.Done,
		ReceivedAt: finished.Add(-time.Hour), StartedAt: finished.Add(-50 * time.Minute), FinishedAt: finished, DeliveredAt: finished.Add(time.Second),
		Outcome: &admin.Outcome{Reason: "crashed", Status: "crashed", ExitCode: 137, Started: true, Message: "killed: memory limit 64 MiB reached (peak 64 MiB)"}}
	j := admin.NewJournal(16)
	j.Add(admin.Event{Time: before(4 * time.Minute), Type: admin.EventReceived, Run: 103, Task: 52})
	j.Add(admin.Event{Time: started, Type: admin.EventStarted, Run: 103, Task: 52, Attributes: map[string]string{"attempt": "1", "queue": "2s"}})
	j.Add(admin.Event{Time: before(time.Minute), Type: admin.EventDisconnected, Message: "the server does not answer"})
	limits := admin.Limits{Memory: 2 << 30, CPUs: 1.5, Pids: 2048, TmpfsSize: 64 << 20, OutputSize: 100 << 20, TimeoutSeconds: 3600}
	effective := limits
	effective.TmpfsSize, effective.OutputSize, effective.TimeoutSeconds, effective.CPUShares = 0, 0, 0, 1024
	used := *running
	used.Accounting = &admin.Accounting{
		CPUSeconds: 61.5, CPUUserSeconds: 60, CPUSystemSeconds: 1.5, ThrottledSeconds: 1.25, ThrottledPeriods: 17, PeakMemory: 123456789,
		QueueSeconds: 2, ImageSeconds: 0.004, StartSeconds: 0.21, RunSeconds: 180,
	}
	return &admintest.Station{
		RunList: []*admin.Run{
			{ID: 105, Task: 54, Organization: 4, OrganizationName: "Maastro", Image: average, State: admin.Queued, ReceivedAt: before(30 * time.Minute)},
			{ID: 104, Task: 53, Organization: 4, OrganizationName: "Maastro", Image: "hostile\x1b[2J:1", State: admin.Preparing, KillWanted: true, ReceivedAt: before(time.Minute)},
			running,
			{ID: 102, Task: 51, Organization: 4, OrganizationName: "Maastro", Image: average, State: admin.Delivering, ReceivedAt: before(time.Hour), StartedAt: before(time.Hour),
				FinishedAt: before(time.Minute), Outcome: &admin.Outcome{Reason: "completed", Started: true}},
			crashed,
			{ID: 100, Task: 48, Organization: 6, Image: "evil:latest", State: admin.Done, ReceivedAt: before(25 * time.Hour), FinishedAt: before(25 * time.Hour), Outcome: &admin.Outcome{Reason: "policy"}},
			{ID: 99, Task: 47, Organization: 6, Image: average, State: admin.Done, ReceivedAt: before(25 * time.Hour), StartedAt: before(25 * time.Hour), FinishedAt: before(25 * time.Hour),
				Outcome: &admin.Outcome{Reason: "killed", Started: true, ExitCode: 143}},
		},
		Inspections: map[int64]*admin.Inspection{103: {
			Run: used, Node: "v6k3x7q2pa", Policy: &admin.Decision{Allowed: true, Reason: "allowed_algorithms: ^harbor.example.org/algorithms/.*"},
			Sandbox:   &admin.Sandbox{ID: "5d0f3c", Ready: true, NetNS: "/var/run/netns/cni-1", Cgroup: "/v6node/v6k3x7q2pa/103", PID: 4242},
			Container: &admin.Container{ID: "8a1e77", State: "running", ImageID: "sha256:77aa", PID: 4250},
			Limits:    admin.LimitsState{Asked: &limits, Effective: &effective, Enforce: "strict"},
			Mounts:    []admin.Mount{{Source: "/srv/data/patients.csv", Destination: "/mnt/data/patients.csv", ReadOnly: true}},
			EnvNames:  []string{"INPUT_FILE", "OUTPUT_FILE"}, LogPath: "/var/lib/v6node/site/work/runs/103/log/algorithm.log",
			Problems: []string{"the runtime did not say which handler it used"},
		}},
		Lines: map[int64][]*admin.LogLine{103: {
			{Time: before(3 * time.Minute), Stream: "stdout", Text: []byte("reading the data")},
			{Time: before(2 * time.Minute), Stream: "stderr", Text: []byte("warning: 3 rows left out")},
			{Time: before(time.Minute), Stream: "stdout", Text: []byte("half")},
			{Time: before(time.Minute), Stream: "stdout", Text: []byte(" a line"), Partial: true},
			{Time: before(time.Minute), Stream: "stdout", Text: []byte(", the rest")},
		}},
		Usage: func() []admin.Usage {
			return []admin.Usage{{Run: 103, Task: 52, Time: time.Unix(1000, 0), StartedAt: time.Unix(820, 0), CPUNanos: 61_500_000_000, ThrottledNanos: 1_250_000_000,
				Memory: 104_857_600, MemoryLimit: 2 << 30, Pids: 5, PidsLimit: 2048, ReadBytes: 1_234_567}}
		},
		Processes: map[int64][]admin.Process{103: {
			{PID: 4250, PPID: 4242, User: "root", State: "S", Threads: 1, CPUPercent: 0.1, CPUSeconds: 0.18, ElapsedSeconds: 180, Memory: 2_500_000, Command: "/algorithm"},
			{PID: 4261, PPID: 4250, User: "1000", State: "R", Threads: 4, CPUPercent: 34.1, CPUSeconds: 61.3, ElapsedSeconds: 179.8, Memory: 98_000_000, Command: "python3 -m worker --seed\n1"},
		}},
		Effective: effective,
		Journal:   j,
		Waiting: []admin.Waiting{{Position: 1, Run: 105, Task: 54, Image: average, Organization: 4, OrganizationName: "Maastro", Since: before(30 * time.Minute),
			Needs: admin.Resources{Memory: 2 << 30, CPUs: 1.5, Pids: 2048, Devices: map[string]int64{"nvidia.com/gpu": 1}}, Reason: "waits for 1 nvidia.com/gpu, which run 103 has"}},
		Information: admin.Info{
			Node: admin.NodeInfo{ID: 12, Name: "Maastro - VITAL", Organization: "Maastro", Collaboration: "VITAL", Encrypted: true, Instance: "v6k3x7q2pa", Version: "0.9.0",
				PID: 811, StartedAt: before(26 * time.Hour), StateDir: "/var/lib/v6node/site", Memory: 48_000_000},
			Session: admin.SessionInfo{URL: "https://v6.example.org/api", Connected: true, Since: before(26 * time.Hour), SyncedAt: before(20 * time.Minute)},
			Runtime: admin.RuntimeInfo{Endpoint: "unix:///run/containerd/containerd.sock", Name: "containerd", Version: "v2.4.2", APIVersion: "v1", CgroupDriver: "systemd", CgroupVersion: 2, TellsDriver: true, Events: "yes", CDI: true,
				AppArmor: true, Seccomp: true, Handlers: []admin.Handler{{}, {Name: "runc", UserNamespaces: true, RecursiveReadOnly: true}}},
			Budget: admin.BudgetInfo{Total: admin.Resources{Memory: 16 << 30, CPUs: 7.5, Runs: 8, Devices: map[string]int64{"nvidia.com/gpu": 1}},
				Used: admin.Resources{Memory: 2 << 30, CPUs: 1.5, Pids: 2048, Runs: 1, Devices: map[string]int64{"nvidia.com/gpu": 1}}},
			Runs: admin.RunCounts{Queued: 1, Preparing: 1, Running: 1, Delivering: 1},
		},
		Garbage: admin.GCReport{Items: []admin.GCItem{
			{Kind: "image", Name: "ghcr.io/example/glm@sha256:11", Size: 812_000_000, UsedAt: before(20 * 24 * time.Hour), Reason: "not used for 20 days"},
			{Kind: "run", Name: "101", Size: 4_096, UsedAt: before(2 * time.Hour), Reason: "over and delivered"},
		}, Freed: 812_004_096},
	}
}

// v6node runs a command in this process, on the node in dir.
func v6node(t *testing.T, ctx context.Context, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	app := newApp()
	app.Version = "0.9.1"
	var out, errOut bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errOut
	code = perform(ctx, app, append([]string{"v6node"}, args...))
	return out.String(), errOut.String(), code
}

var moment = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)

// golden compares with testdata/NAME, moments aside.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = moment.ReplaceAllStringFunc(got, func(s string) string { return "TIME" + strings.Repeat("_", len(s)-4) })
	file := filepath.Join("testdata", name)
	if *renew {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestCommandsPrintTheirTables(t *testing.T) {
	for _, c := range []struct{ name, args string }{
		{"ps", "ps"}, {"ps-all", "ps -a"}, {"ps-filter", "ps -a --filter status=done --filter status=delivering --filter reason=crashed --filter reason=completed"}, {"ps-quiet", "ps -aqn 3"},
		{"logs", "logs 103"}, {"logs-tail", "logs 103 -n 1"}, {"stats", "stats --no-stream"}, {"stats-run", "stats 103 --no-stream"}, {"top", "top 103"}, {"inspect", "inspect -o table 103 101"},
		{"kill", "kill 103 105 103"}, {"update", "update 103 --memory 4g --cpus 2 --pids-limit=100"}, {"events", "events"}, {"events-filter", "events --filter run=103 --filter type=started"},
		{"queue", "queue"}, {"pause", "pause"}, {"resume", "resume"}, {"info", "info"}, {"version", "version"}, {"gc", "gc"}, {"gc-dry-run", "gc --dry-run"},
	} {
		dir := admintest.Serve(t, hospital(), admin.ServerOptions{Version: "0.9.0"})
		out, errOut, code := v6node(t, t.Context(), append(strings.Fields(c.args), "--state-dir", dir)...)
		if code != 0 || (errOut != "" && c.name != "logs" && c.name != "logs-tail") {
			t.Errorf("%s: exit code %d, %s", c.args, code, errOut)
		}
		if c.name == "version" { // which Go, and which machine, is not the point
			out = regexp.MustCompile(` {2,}(GO|go).*`).ReplaceAllString(out, "")
		}
		golden(t, c.name+".golden", out)
		if c.name == "logs" && errOut != "warning: 3 rows left out\n" {
			t.Errorf("standard error of the log: %q", errOut)
		}
		if strings.ContainsRune(out, '\x1b') {
			t.Errorf("%s lets an image's name steer the terminal: %q", c.args, out)
		}
	}
}

func TestCommandsPrintJSON(t *testing.T) {
	dir := admintest.Serve(t, hospital(), admin.ServerOptions{})
	for _, args := range []string{
		"ps", "ps -a", "ps --filter task=1", "stats --no-stream", "top 103", "inspect 103 101", "kill 103", "update --memory 1g 103", "queue", "pause", "resume", "info", "version", "gc --dry-run",
	} {
		out, errOut, code := v6node(t, t.Context(), append(strings.Fields(args), "-o", "json", "--state-dir", dir)...)
		var v any
		if err := json.Unmarshal([]byte(out), &v); err != nil || v == nil || code != 0 {
			t.Errorf("%s: exit code %d, %v, %s\n%s", args, code, err, errOut, out)
		}
	}
	for args, lines := range map[string]int{"logs 103": 5, "events": 3} {
		out, errOut, code := v6node(t, t.Context(), append(strings.Fields(args), "-o", "json", "--state-dir", dir)...)
		got := 0
		for line := range strings.Lines(out) {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%s: %v\n%s", args, err, line)
			}
			got++
		}
		if got != lines || code != 0 {
			t.Errorf("%s: %d lines, exit code %d, %s", args, got, code, errOut)
		}
	}
}

func TestCommandsAskTheNodeForWhatTheCommandLineSays(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // the last call
	}{
		{"kill latest", "Kill 105"},
		{"update 103 -m 64m --memory-swap -1 --memory-reservation=32m --cpu-shares 512 --cpuset-cpus 0-1 --cpuset-mems 0 --timeout 90s",
			`Update 103 {"memory":67108864,"memory_swap":-1,"memory_reservation":33554432,"cpu_shares":512,"cpuset_cpus":"0-1","cpuset_mems":"0","timeout_seconds":90}`},
		{"update 103 --memory 0", `Update 103 {"memory":0}`},
		{"gc --dry-run", "GC true false"},
		{"gc --all", "GC false true"},
		{"logs --tail all 103", `Logs 103 {"Follow":false,"Since":"0001-01-01T00:00:00Z","Tail":null}`},
		{"logs --since 2026-08-01T00:00:00Z --tail 0 103", `Logs 103 {"Follow":false,"Since":"2026-08-01T00:00:00Z","Tail":0}`},
		{"stats 103 103 --no-stream", "Stats [103]"},
	} {
		s := hospital()
		dir := admintest.Serve(t, s, admin.ServerOptions{})
		if _, errOut, code := v6node(t, t.Context(), append(strings.Fields(c.args), "--state-dir", dir)...); code != 0 {
			t.Errorf("%s: exit code %d, %s", c.args, code, errOut)
		}
		calls := s.Calls()
		if got := calls[len(calls)-1]; got != c.want {
			t.Errorf("%s asked\n%s, want\n%s", c.args, got, c.want)
		}
	}
}

func TestFailuresHaveTheirExitCodesAndASentence(t *testing.T) {
	dir := admintest.Serve(t, hospital(), admin.ServerOptions{})
	empty := admintest.Serve(t, &admintest.Station{}, admin.ServerOptions{})
	failing := hospital()
	failing.Garbage.Items[0].Error = "it is in use"
	full := admintest.Serve(t, failing, admin.ServerOptions{})
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"ps --state-dir /nowhere/at/all", exitDown, "no node runs with the state directory /nowhere/at/all"},
		{"version --state-dir /nowhere", exitDown, "ask the node for its version"},
		{"logs 999 --state-dir " + dir, exitNoRun, "knows no run 999"},
		{"logs latest --state-dir " + empty, exitNoRun, "no run yet"},
		{"kill 101 --state-dir " + dir, exitState, "nothing to kill"},
		{"top 101 --state-dir " + dir, exitState, "run 101 is done"},
		{"stats 101 --state-dir " + dir, exitState, "101"},
		{"kill 999 103 101 --state-dir " + dir, exitNoRun, "knows no run 999\nv6node: run 101 is over"},
		{"inspect 103 999 --state-dir " + dir, exitNoRun, ""},
		{"gc --state-dir " + full, exitFailure, "image ghcr.io/example/glm@sha256:11 could not be removed: it is in use"},
		{"ps surplus", exitUsage, "takes no argument"},
		{"logs", exitUsage, "wants RUN"},
		{"logs 1 2", exitUsage, "wants RUN"},
		{"kill", exitUsage, "wants RUN..."},
		{"kill first --state-dir " + dir, exitUsage, `"first" is not a run`},
		{"ps -o xml", exitUsage, "table or json"},
		{"ps --filter color=red", exitUsage, "color=red"},
		{"ps --last 0", exitUsage, "--last"},
		{"ps --no-such-flag", exitUsage, "no-such-flag"},
		{"logs --since yesterday 1", exitUsage, "yesterday"},
		{"logs --tail few 1", exitUsage, "few"},
		{"stats --interval 1ms", exitUsage, "1ms"},
		{"update 103", exitUsage, "at least one limit"},
		{"update --memory lots 103", exitUsage, "lots"},
		{"update --cpus NaN 103", exitUsage, "NaN"},
		{"update --pids-limit -5 103", exitUsage, "-5"},
		{"events --filter since=1", exitUsage, "since=1"},
		{"completion tcsh", exitUsage, "tcsh"},
		{"ps --config /nowhere.yaml", exitUsage, "/nowhere.yaml"},
	} {
		_, errOut, code := v6node(t, t.Context(), strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: exit code %d, want %d; %q, want %q", c.args, code, c.code, errOut, c.says)
		}
	}
}

func TestTheNodeIsFoundByFlagFileEnvironmentAndPlace(t *testing.T) {
	root := t.TempDir()
	site, other := filepath.Join(root, "site"), filepath.Join(root, "other")
	for _, d := range []string{site, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stop := admintest.ServeAt(t, site, hospital(), admin.ServerOptions{})
	defer stop()
	file := filepath.Join(root, "node.yaml")
	if err := os.WriteFile(file, []byte("server_url: https://v6.example.org\nport: 443\napi_path: /api\napi_key: k\nstate_dir: "+site+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("V6NODE_STATE_DIR", other)
	for _, args := range [][]string{{"--state-dir", site}, {"--config", file}, {"-c", file}} {
		if _, errOut, code := v6node(t, t.Context(), append([]string{"queue"}, args...)...); code != 0 {
			t.Errorf("%q: %d %s", args, code, errOut)
		}
	}
	if _, errOut, code := v6node(t, t.Context(), "queue"); code != exitDown || !strings.Contains(errOut, other) {
		t.Errorf("V6NODE_STATE_DIR of no node: %d %s", code, errOut)
	}
	t.Setenv("V6NODE_STATE_DIR", site)
	if _, errOut, code := v6node(t, t.Context(), "queue"); code != 0 {
		t.Errorf("V6NODE_STATE_DIR: %d %s", code, errOut)
	}
	t.Setenv("V6NODE_STATE_DIR", "")
	t.Setenv("V6NODE_CONFIG", file)
	if _, errOut, code := v6node(t, t.Context(), "queue"); code != 0 {
		t.Errorf("V6NODE_CONFIG: %d %s", code, errOut)
	}
	if got, err := findStateDir([]string{root}); err != nil || got != site {
		t.Errorf("the only node: %s, %v", got, err)
	}
	if got, err := findStateDir([]string{other}); err != nil || got != other {
		t.Errorf("no node: %s, %v", got, err)
	}
	stopOther := admintest.ServeAt(t, other, hospital(), admin.ServerOptions{})
	defer stopOther()
	if _, err := findStateDir([]string{root}); err == nil || !strings.Contains(err.Error(), site) || !strings.Contains(err.Error(), other) {
		t.Errorf("two nodes: %v", err)
	}
}

func TestAFollowedLogEndsWellWithCtrlC(t *testing.T) {
	s := hospital()
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	cmd := program(t, "logs", "-ft", "103", "--state-dir", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "Z reading the data\n") {
		t.Errorf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	<-s.Idle()
}

func TestAPauseThatWaitsEndsWhenNothingIsLeft(t *testing.T) {
	s := hospital()
	asked := 0
	s.OnInfo = func(context.Context) (*admin.Info, error) {
		asked++
		i := &admin.Info{Node: admin.NodeInfo{Paused: true}}
		if asked == 1 {
			i.Runs.Delivering = 1
		}
		return i, nil
	}
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	out, errOut, code := v6node(t, t.Context(), "pause", "--wait", "--state-dir", dir)
	if code != 0 || asked != 3 || !strings.Contains(out, "no further run") {
		t.Errorf("%d, asked %d times, %s %s", code, asked, out, errOut)
	}
}
