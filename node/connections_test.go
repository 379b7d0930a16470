package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/runtime"
)

// doorsOf are the addresses of the doors that a run was given last.
func (e *fakeEngine) doorsOf(run int64) (list []engine.Door, addresses []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.doors[run] {
		addresses = append(addresses, d.Address.String())
	}
	return e.doors[run], addresses
}

// through connects to a door and returns what the other side says.
func through(t *testing.T, d engine.Door) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// TestARunKeepsItsConnections: a run gets what its task and the configuration
// give it, and after a restart the same, whatever the configuration says then.
func TestARunKeepsItsConnections(t *testing.T) {
	database, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := database.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "hello from the database")
			c.Close()
		}
	}()
	t.Cleanup(func() { database.Close(); <-done })
	_, port, err := net.SplitHostPort(database.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	hosts := make(chan string, 1)
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(func(r *fakeRun) int {
		b, err := os.ReadFile(r.host("/etc/hosts"))
		web := slices.ContainsFunc(r.spec.Env, func(v runtime.EnvVar) bool { return v.Name == "HTTP_PROXY" })
		hosts <- fmt.Sprintln(string(b), web, err)
		return until(gate)(r)
	}), fmt.Sprintf(`databases:
  - {label: here, uri: "postgresql://u:p@localhost:%s/x", type: sql}
  - {label: there, uri: "postgresql://u:p@db.example.org/x", type: sql}
services: {pacs: "10.1.2.3:104"}
whitelist: {domains: [example.com]}
`, port))
	n := s.start()
	task, err := s.user.CreateTask(s.ctx, standin.TaskSpec{
		Name: "test", Image: testImage, Collaboration: s.collab, Organizations: []int64{s.org}, Method: "echo", Databases: []standin.DatabaseSpec{{Label: "here"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	run := s.waitActive(task)
	want := []string{"127.0.0.1:" + port, "127.0.0.3:104", "127.0.0.4:3128"}
	doors, got := s.engine.doorsOf(run)
	if !slices.Equal(got, want) {
		t.Fatalf("doors at %q, wanted %q", got, want)
	}
	if text := through(t, doors[0]); text != "hello from the database" {
		t.Errorf("the database says %q", text)
	}
	if text := <-hosts; !strings.Contains(text, "127.0.0.3\tpacs\n127.0.0.4\twebproxy\n") || strings.Contains(text, "db.example.org") || !strings.HasSuffix(text, "true <nil>\n") {
		t.Errorf("hosts file and HTTP_PROXY: %s", text)
	}
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	s.yaml = ""
	n = s.start()
	s.eventually("the doors after a restart", func() bool {
		s.engine.mu.Lock()
		defer s.engine.mu.Unlock()
		return &s.engine.doors[run][0] != &doors[0]
	})
	again, got := s.engine.doorsOf(run)
	if !slices.Equal(got, want) {
		t.Errorf("after the restart doors at %q, wanted %q", got, want)
	} else if text := through(t, again[0]); text != "hello from the database" {
		t.Errorf("after the restart the database says %q", text)
	}
	close(gate)
	if r := s.result(task); r.Status != standin.StatusCompleted {
		t.Errorf("%s: %s", r.Status, r.Log)
	}
	s.clean(n)
}

func TestADatabaseOfAReloadHasItsConnection(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "")
	n := s.start()
	s.yaml = "databases:\n  - {label: late, uri: \"postgresql://u:p@db.example.org/x\", type: sql}\n"
	if c, err := n.view().Reload(s.ctx); err != nil || !slices.Equal(c.Applied, []string{"databases"}) {
		t.Fatalf("%+v, %v", c, err)
	}
	task, err := s.user.CreateTask(s.ctx, standin.TaskSpec{
		Name: "test", Image: testImage, Collaboration: s.collab, Organizations: []int64{s.org}, Method: "echo", Databases: []standin.DatabaseSpec{{Label: "late"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, got := s.engine.doorsOf(s.waitActive(task)); !slices.Equal(got, []string{"127.0.0.3:5432"}) {
		t.Errorf("doors at %q", got)
	}
	close(gate)
	s.ends(task, standin.StatusCompleted)
	s.clean(n)
}

func TestDamagedConnectionsEndTheRunWithTheReason(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "")
	n := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	file := s.dir + "/state/work/runs/" + fmt.Sprint(run) + "/connections"
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	n = s.start()
	if r := s.result(task); r.Status == standin.StatusCompleted || !strings.Contains(r.Log, "connections is damaged") {
		t.Errorf("%s: %s", r.Status, r.Log)
	}
	s.clean(n)
}

func TestATunnelThatIsGoneIsTold(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	ws := workspace.Root{Dir: t.TempDir()}.Open(1)
	if b, err := ws.Connections(); err != nil || len(b) != 0 {
		t.Errorf("a run from before has %q, %v", b, err)
	}
	if _, err := n.node.dialler(reach.Target{Kind: reach.Tunnel, Address: "far:5432"})(t.Context()); err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "ssh-tunnels") {
		t.Error(err)
	}
}
