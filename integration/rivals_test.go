//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

func rivalScenarios() []scenario {
	return []scenario{
		{"two runs at the same time cannot see, reach or guess anything of each other", rivals},
	}
}

// found is what the test algorithm's rival found of one side.
type found struct {
	Files                         []string
	Shared, Paths, Names, Connect map[string]string
	API                           int
	Detour                        map[string]int
	Signals                       bool
	Scanned, Port                 int
	Open, Listen                  []string
	Database                      string
}

// opponent is one of two runs that live at the same time.
type opponent struct {
	name      string
	mark      string // in everything that is its
	host      string // of its database
	port      string
	listen    string // where that is in its sandbox
	task, run int64
	scratch   string // the machine's path
	token     string
}

func (o *opponent) address() string { return net.JoinHostPort(o.host, o.port) }

// rivals starts two runs of one node, each with a file and a network database of its own, and has each
// look for everything that the other has, at the same time. That the look can find is shown by what
// each finds of its own.
func rivals(t *testing.T, w *world) {
	name, address := machineName(t)
	left := &opponent{name: "left", mark: "mark-of-the-left-7391", host: name, listen: "127.0.0.3"}
	right := &opponent{name: "right", mark: "mark-of-the-right-2846", host: "127.0.0.9", listen: "127.0.0.9"}
	left.port, right.port = says(t, net.JoinHostPort(address, "0"), "left"), says(t, "127.0.0.9:0", "right")
	var list []map[string]any
	dir := filepath.Join(w.dir, fmt.Sprintf("rivals%d", w.number()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*opponent{left, right} {
		file := filepath.Join(dir, o.name+".csv")
		if err := os.WriteFile(file, []byte("patient\n"+o.mark+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list,
			map[string]any{"label": o.name + "_file", "uri": file, "type": "csv"},
			map[string]any{"label": o.name, "uri": "postgresql://user:" + o.mark + "@" + o.address() + "/x", "type": "sql", "env": map[string]any{"password": o.mark}})
	}
	if w.user != nil {
		if err := w.user.own(dir); err != nil {
			t.Fatal(err)
		}
	}
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": list}})
	both := []*opponent{left, right}
	for _, o := range both {
		o.task, o.run = n.post(t, "rival", kwargs{"mark": o.mark, "database": o.address()}, databases(o.name, o.name+"_file"))
	}
	for _, o := range both {
		n.active(t, o.run)
		o.scratch = (&gate{n: n, task: o.task, run: o.run}).scratch(t)
		ready(t, n, o, "ready")
		token, err := os.ReadFile(filepath.Join(n.runDir(o.run), "token"))
		if err != nil || len(token) == 0 {
			t.Fatalf("the token of %s: %v", o.name, err)
		}
		o.token = string(token)
	}
	for i, o := range both {
		other := both[1-i]
		text, err := json.Marshal(map[string]any{
			"mark": []byte(other.mark), "token": other.token, "names": []string{other.host + "."},
			"addresses": []string{
				other.address(), net.JoinHostPort(other.listen, other.port), net.JoinHostPort(address, other.port), net.JoinHostPort("192.0.2.2", other.port),
			},
			"paths": n.pathsOf(t, other),
		})
		if err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(o.scratch, "other.new")
		if err := os.WriteFile(next, text, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(next, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(o.scratch, "other")); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range both { // both live until both have looked
		ready(t, n, o, "done")
	}
	for _, o := range both {
		if err := os.WriteFile(filepath.Join(o.scratch, "leave"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for i, o := range both {
		n.judgeRival(t, o, both[1-i])
	}
}

// ready waits for a file that an opponent makes.
func ready(t *testing.T, n *node, o *opponent, what string) {
	t.Helper()
	eventually(t, func() error {
		if r, _ := n.w.server.Run(o.run); r.FinishedAt != nil {
			t.Fatalf("%s ended as %q", o.name, r.Status)
		}
		_, err := os.Stat(filepath.Join(o.scratch, what))
		return err
	})
}

// pathsOf are where an opponent's files are, for its algorithm and on the machine, with the ways through
// the processes of both.
func (n *node) pathsOf(t *testing.T, o *opponent) []string {
	t.Helper()
	data := fmt.Sprintf("/mnt/data/task-%09d", o.run)
	paths := []string{
		data, data + "/input", data + "/output", data + "/token", "/mnt/data/" + o.name + ".csv", "/mnt/" + o.name + "_file.csv",
		n.runDir(o.run), o.scratch, n.StateDir, n.Config, filepath.Join(n.StateDir, "ledger.db"), filepath.Join(n.StateDir, "admin.sock"),
	}
	sandboxes := n.sandboxes(t, o.run)
	if len(sandboxes) != 1 {
		t.Fatalf("%s has %d sandboxes", o.name, len(sandboxes))
	}
	s, err := n.runtime(t).SandboxStatus(within(t), sandboxes[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{s.PID}
	for _, p := range show[[]struct{ PID int }](t, n, "top", strconv.FormatInt(o.run, 10)) {
		pids = append(pids, p.PID)
	}
	for _, pid := range pids {
		for _, file := range []string{"root", "cwd", "environ", "mem", "fd", "root" + data + "/token"} {
			paths = append(paths, fmt.Sprintf("/proc/%d/%s", pid, file))
		}
	}
	return append(paths, s.NetNS, "/proc/1/root/../"+n.runDir(o.run))
}

// judgeRival looks at what one opponent found.
func (n *node) judgeRival(t *testing.T, o, other *opponent) {
	t.Helper()
	e := n.finish(t, o.task)
	if strings.Contains(e.Text, other.mark) {
		t.Errorf("the log of %s has the mark of %s", o.name, other.name)
	}
	got := completed[struct{ Own, Theirs found }](t, e)

	// What it has itself it finds.
	data := fmt.Sprintf("/mnt/data/task-%09d", o.run)
	for _, want := range []string{
		data + "/input", "/mnt/data/" + o.name + ".csv", "/tmp/of-" + o.mark, "/dev/shm/of-" + o.mark, "/mnt/tmp/of-" + o.mark, "/mnt/tmp/socket-of-" + o.mark,
		"/proc/1/environ", "/proc/1/net/unix",
	} {
		if !slices.Contains(got.Own.Files, want) {
			t.Errorf("%s does not find its own %s, but %q", o.name, want, got.Own.Files)
		}
	}
	for _, what := range []string{"abstract socket", "tcp", "tcp of eth0", "udp", "shared memory", "message queue"} {
		if why := got.Own.Shared[what]; why != "" {
			t.Errorf("%s does not reach its own %s: %s", o.name, what, why)
		}
	}
	for _, paths := range []map[string]string{got.Own.Paths, got.Own.Names, got.Own.Connect} {
		if len(paths) == 0 {
			t.Errorf("%s has not tried what is its own", o.name)
		}
		for what, why := range paths {
			if why != "" {
				t.Errorf("%s does not get at its own %s: %s", o.name, what, why)
			}
		}
	}
	if want := o.name + " heard " + o.mark; got.Own.API != 200 || got.Own.Database != want {
		t.Errorf("%s: the API answers %d to its own token, and its database %q", o.name, got.Own.API, got.Own.Database)
	}

	// What the other has it does not.
	if len(got.Theirs.Files) > 0 {
		t.Errorf("%s finds the mark of %s in %q", o.name, other.name, got.Theirs.Files)
	}
	if len(got.Theirs.Shared) != 7 || len(got.Theirs.Paths) < 20 || len(got.Theirs.Names) != 1 || len(got.Theirs.Connect) < 3 {
		t.Errorf("%s has not tried everything: %+v", o.name, got.Theirs)
	}
	for _, tried := range []map[string]string{got.Theirs.Shared, got.Theirs.Paths, got.Theirs.Names, got.Theirs.Connect} {
		for what, why := range tried {
			if why == "" {
				t.Errorf("%s gets at %s of %s", o.name, what, other.name)
			}
		}
	}
	if got.Theirs.API != 403 && got.Theirs.API != 401 {
		t.Errorf("the API of %s answers %d to the token of %s", o.name, got.Theirs.API, other.name)
	}
	for address, status := range got.Theirs.Detour {
		if status < 400 {
			t.Errorf("the API of %s leads to %s: %d", o.name, address, status)
		}
	}
	if got.Own.Signals || got.Theirs.Signals {
		t.Errorf("%s can signal processes that are not its own", o.name)
	}
	// What listens in its sandbox is the API, its database, and what it made itself.
	api, database := "127.0.0.2:"+strconv.Itoa(alphaPort), net.JoinHostPort(o.listen, o.port)
	made := fmt.Sprintf(":%04X", got.Own.Port)
	listen := slices.DeleteFunc(got.Own.Listen, func(l string) bool { return strings.HasSuffix(l, made) })
	slices.Sort(listen)
	if want := listening(t, api, database); !slices.Equal(listen, want) || !slices.Equal(got.Own.Open, []string{api}) || got.Own.Scanned < 6000 {
		t.Errorf("in the sandbox of %s listen %q, wanted %q, and a scan of %d finds %q, wanted %q", o.name, listen, want, got.Own.Scanned, got.Own.Open, api)
	}
	if e.Status != standin.StatusCompleted {
		t.Errorf("%s ended as %q", o.name, e.Status)
	}
}
