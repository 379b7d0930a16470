package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/health"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/proxy/e2e"
)

const testImage = "registry.invalid/algo@sha256:1111111111111111111111111111111111111111111111111111111111111111"

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// station is a node with a stand-in server and a fake engine.
type station struct {
	t      *testing.T
	ctx    context.Context
	srv    *standin.Server
	user   *standin.Researcher
	engine *fakeEngine
	dir    string
	apiKey string
	org    int64
	collab int64
	node   int64
	yaml   string
	images Images
	caches []Cache
}

func newStation(t *testing.T, e *fakeEngine, yaml string) *station {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a run's workspace mounts a tmpfs, which needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	srv, err := standin.New(standin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	s := &station{t: t, ctx: ctx, srv: srv, engine: e, dir: t.TempDir(), yaml: yaml, images: fakeImages{}}
	t.Cleanup(func() { // of a run whose removal the test did not wait for
		files := workspace.Root{Dir: filepath.Join(s.dir, "state", "work")}
		ids, err := files.RunIDs()
		for _, id := range ids {
			err = errors.Join(err, files.Open(id).Remove())
		}
		if err != nil {
			t.Error(err)
		}
	})
	s.org = srv.AddOrganization("hospital")
	s.collab = srv.AddCollaboration("study", strings.Contains(yaml, "enabled: true"), s.org)
	s.apiKey = srv.AddNode(s.org, s.collab)
	s.node = srv.NodeID(s.apiKey)
	srv.AddUser(s.org, "user", "password")
	s.user, err = standin.NewResearcher(ctx, srv.URL(), "user", "password", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.user.Close)
	return s
}

// running is a started node.
type running struct {
	stop  context.CancelFunc
	ended chan error
	node  *Node
}

// start starts the node on its state directory; what it left there before is
// found again.
func (s *station) start() *running {
	s.t.Helper()
	read := s.reader()
	cfg, _, err := read()
	if err != nil {
		s.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	state, err := OpenState(cfg.StateDir)
	if err != nil {
		s.t.Fatal(err)
	}
	api, err := server.NewV4(server.Config{
		URL: cfg.Server.URL, Port: cfg.Server.Port, APIPath: cfg.Server.APIPath, APIKey: s.apiKey, Log: log,
		PollInterval: cfg.PollInterval, Timing: server.Timing{BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	resolver := image.New(image.Options{Local: LocalImages(s.images), RequirePull: cfg.Policies.RequirePull})
	n, err := New(Options{Config: cfg, State: state, API: api, Engine: s.engine, Images: s.images, Caches: s.caches, Resolver: resolver, Health: health.New(nil), Reload: read,
		Applied: func(c *config.Config) { resolver.SetRequirePull(c.Policies.RequirePull) }, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.ctx)
	r := &running{stop: stop, ended: make(chan error, 1), node: n}
	go func() {
		err := n.Run(ctx)
		api.Close()
		r.ended <- errors.Join(err, n.Close(), resolver.Close(), state.Close())
		close(r.ended)
	}()
	s.t.Cleanup(func() { stop(); <-r.ended })
	return r
}

// reader reads the station's configuration as it is at that moment.
func (s *station) reader() func() (*config.Config, []config.Warning, error) {
	return func() (*config.Config, []config.Warning, error) {
		text := fmt.Sprintf("server_url: http://127.0.0.1\nport: %d\napi_path: %s\napi_key: %s\nstate_dir: %s\npoll_interval: 1s\n%s",
			s.srv.Port(), s.srv.APIPath(), s.apiKey, filepath.Join(s.dir, "state"), s.yaml)
		return config.Parse("node.yaml", []byte(text))
	}
}

// end stops the node and returns its error.
func (r *running) end() error {
	r.stop()
	return <-r.ended
}

func (s *station) task(kwargs map[string]any) int64 {
	s.t.Helper()
	id, err := s.user.CreateTask(s.ctx, standin.TaskSpec{
		Name: "test", Image: testImage, Collaboration: s.collab, Organizations: []int64{s.org}, Method: "echo", Kwargs: kwargs,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// result waits for a task's end and returns its one result.
func (s *station) result(task int64) standin.Result {
	s.t.Helper()
	if _, err := s.srv.WaitTask(s.ctx, task); err != nil {
		s.t.Fatalf("task %d: %v: %+v", task, err, s.srv.RunsOf(task))
	}
	rs, err := s.user.Results(s.ctx, task)
	if err != nil || len(rs) != 1 {
		s.t.Fatalf("results of task %d: %v, %v", task, rs, err)
	}
	return rs[0]
}

func (s *station) waitActive(task int64) int64 {
	s.t.Helper()
	run := s.srv.RunsOf(task)[0].ID
	if _, err := s.srv.WaitRun(s.ctx, run, standin.StatusActive); err != nil {
		s.t.Fatal(err)
	}
	return run
}

// clean waits until nothing of any run is left.
func (s *station) clean(r *running) {
	s.t.Helper()
	for {
		open, err := r.node.ledger.Unfinished()
		if err != nil {
			s.t.Fatal(err)
		}
		if len(open) == 0 {
			break
		}
		select {
		case <-s.ctx.Done():
			s.t.Fatalf("runs stay open: %+v", *open[0])
		case <-time.After(5 * time.Millisecond): // no event tells of a closed record
		}
	}
	if n := s.engine.left(); n != 0 {
		s.t.Errorf("the engine still holds %d things", n)
	}
	files, err := r.node.files.RunIDs()
	if err != nil || len(files) != 0 {
		s.t.Errorf("run directories left: %v, %v", files, err)
	}
}

// finals counts the final PATCHes that the server took.
func finals(r standin.RunRecord) int {
	n := 0
	for _, e := range r.History {
		if e.Kind == standin.RunPatched && e.Field("finished_at") != "" {
			n++
		}
	}
	return n
}

func TestARunIsExecutedAndItsResultDelivered(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	n := s.start()
	task := s.task(map[string]any{"x": 1})
	r := s.result(task)
	var in struct {
		Method string
		Kwargs map[string]int
	}
	if err := json.Unmarshal(r.Data, &in); err != nil || r.Status != standin.StatusCompleted || in.Method != "echo" || in.Kwargs["x"] != 1 {
		t.Errorf("status %s, result %s (%v)", r.Status, r.Data, err)
	}
	if rec := s.srv.RunsOf(task)[0]; finals(rec) != 1 {
		t.Errorf("%d final patches: %+v", finals(rec), rec.History)
	}
	s.clean(n)
}

func TestManyRunsGoSideBySide(t *testing.T) {
	const count = 25
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "resources: {budget: {runs: 100, memory: 1t, pids: 1000000}}\n")
	n := s.start()
	tasks := make([]int64, count)
	for i := range tasks {
		tasks[i] = s.task(nil)
	}
	for _, id := range tasks { // all are active before the first may end
		s.waitActive(id)
	}
	close(gate)
	for _, id := range tasks {
		if r := s.result(id); r.Status != standin.StatusCompleted {
			t.Errorf("task %d: %s %s", id, r.Status, r.Log)
		}
	}
	s.clean(n)
}

func TestEachFailureHasItsStatusAndSentence(t *testing.T) {
	for name, c := range map[string]struct {
		yaml      string
		algorithm func(*fakeRun) int
		openErr   error
		status    string
		log       string
	}{
		"a non-zero exit":      {algorithm: func(*fakeRun) int { return 3 }, status: standin.StatusCrashed, log: "exit code 3"},
		"no output":            {algorithm: func(*fakeRun) int { return 0 }, status: standin.StatusCrashed, log: "wrote no output"},
		"a linked output":      {algorithm: linkOutput, status: standin.StatusCrashed, log: "not a regular file"},
		"a forbidden image":    {yaml: "policies:\n  allowed_algorithms: registry.invalid/other\n", algorithm: echo, status: standin.StatusNotAllowed, log: "allowed"},
		"a foreign network":    {algorithm: echo, openErr: fmt.Errorf("%w: run v6node cni install", engine.ErrNetwork), status: standin.StatusStartFailed, log: "v6node cni install"},
		"a runtime that fails": {algorithm: echo, openErr: errors.New("no space left"), status: standin.StatusStartFailed, log: "no space left"},
		"a result too large":   {yaml: "limits:\n  output_size: 10b\n", algorithm: echo, status: standin.StatusCrashed, log: "delivers 10 at most"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFakeEngine(c.algorithm)
			e.openErr = c.openErr
			s := newStation(t, e, c.yaml)
			n := s.start()
			r := s.result(s.task(nil))
			if r.Status != c.status || !strings.Contains(r.Log, c.log) || len(r.Data) > 0 {
				t.Errorf("status %q, log %q, data %q", r.Status, r.Log, r.Data)
			}
			s.clean(n)
		})
	}
}

func linkOutput(r *fakeRun) int {
	if os.Remove(r.file("output")) != nil || os.Symlink("/etc/shadow", r.file("output")) != nil {
		return 9
	}
	return 0
}

func TestADatabaseThatTheNodeLacksFailsTheRun(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	s.start()
	id, err := s.user.CreateTask(s.ctx, standin.TaskSpec{
		Name: "test", Image: testImage, Collaboration: s.collab, Organizations: []int64{s.org}, Method: "echo",
		Databases: []standin.DatabaseSpec{{Label: "nowhere"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := s.result(id); r.Status != standin.StatusStartFailed || !strings.Contains(r.Log, `"nowhere"`) {
		t.Errorf("status %q, log %q", r.Status, r.Log)
	}
}

func TestAKillEndsARunInEachPhase(t *testing.T) {
	t.Run("while it starts", func(t *testing.T) {
		e := newFakeEngine(echo)
		e.opened = make(chan int64)
		s := newStation(t, e, "")
		n := s.start()
		task := s.task(nil)
		<-e.opened
		if err := s.user.Kill(s.ctx, task); err != nil {
			t.Fatal(err)
		}
		s.clean(n)
		if st := s.srv.RunsOf(task)[0].Status; st != standin.StatusKilled || e.startsOf(s.srv.RunsOf(task)[0].ID) != 0 {
			t.Errorf("status %s, started %d times", st, e.startsOf(s.srv.RunsOf(task)[0].ID))
		}
	})
	t.Run("while it runs", func(t *testing.T) {
		s := newStation(t, newFakeEngine(until(nil)), "")
		n := s.start()
		task := s.task(nil)
		s.waitActive(task)
		if err := s.user.Kill(s.ctx, task); err != nil {
			t.Fatal(err)
		}
		s.clean(n)
		if st := s.srv.RunsOf(task)[0].Status; st != standin.StatusKilled {
			t.Errorf("status %s", st)
		}
	})
	t.Run("while the event is lost", func(t *testing.T) {
		s := newStation(t, newFakeEngine(until(nil)), "")
		n := s.start()
		task := s.task(nil)
		s.waitActive(task)
		s.srv.LoseEvents(true)
		if err := s.user.Kill(s.ctx, task); err != nil {
			t.Fatal(err)
		}
		s.clean(n) // the poll finds it
	})
}

func TestAnEmptyKillListKillsNothing(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "")
	s.start()
	task := s.task(nil)
	s.waitActive(task)
	s.srv.EmitKillList(s.collab, nil)
	second := s.task(nil) // its activity shows that the event was handled
	s.waitActive(second)
	close(gate)
	if r := s.result(task); r.Status != standin.StatusCompleted {
		t.Errorf("status %s", r.Status)
	}
}

func TestAResultSurvivesFaultsOfTheServer(t *testing.T) {
	for name, f := range map[string]standin.Fault{
		"bad gateway":      {Method: http.MethodPatch, Path: "/run/*", Skip: 1, Times: 3, Status: http.StatusBadGateway},
		"dropped before":   {Method: http.MethodPatch, Path: "/run/*", Skip: 1, Times: 2, DropBefore: true},
		"reply lost":       {Method: http.MethodPatch, Path: "/run/*", Skip: 1, Times: 1, DropAfter: true},
		"refused at first": {Path: "/token/container", Times: 1, Status: http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStation(t, newFakeEngine(echo), "")
			n := s.start()
			s.srv.Fault(f)
			task := s.task(nil)
			r := s.result(task)
			if r.Status != standin.StatusCompleted || finals(s.srv.RunsOf(task)[0]) != 1 {
				t.Errorf("status %s, %d finals: %s", r.Status, finals(s.srv.RunsOf(task)[0]), r.Log)
			}
			s.clean(n)
			if e := s.engine.startsOf(r.RunID); e != 1 {
				t.Errorf("the algorithm ran %d times", e)
			}
		})
	}
}

func TestAStoppedNodesRunsGoOnAndAreTakenOver(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "")
	first := s.start()
	running, ended := s.task(nil), s.task(map[string]any{"second": true})
	s.waitActive(running)
	s.waitActive(ended)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	if len(s.engine.boxes) != 2 {
		t.Fatalf("%d sandboxes live after the stop, want 2", len(s.engine.boxes))
	}
	close(gate) // both end, perhaps before the next start and perhaps after
	second := s.start()
	for _, id := range []int64{running, ended} {
		r := s.result(id)
		if r.Status != standin.StatusCompleted || s.engine.startsOf(r.RunID) != 1 || finals(s.srv.RunsOf(id)[0]) != 1 {
			t.Errorf("task %d: status %s, started %d times, %d finals", id, r.Status, s.engine.startsOf(r.RunID), finals(s.srv.RunsOf(id)[0]))
		}
	}
	s.clean(second)
}

func TestARunWhoseSandboxVanishedIsReportedAndNotRunAgain(t *testing.T) {
	s := newStation(t, newFakeEngine(until(nil)), "")
	first := s.start()
	task := s.task(nil)
	run := s.waitActive(task)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	if err := s.engine.Remove(s.ctx, run); err != nil {
		t.Fatal(err)
	}
	second := s.start()
	r := s.result(task)
	if r.Status != standin.StatusCrashed || !strings.Contains(r.Log, "disappeared") || s.engine.startsOf(run) != 1 {
		t.Errorf("status %s, started %d times, log %q", r.Status, s.engine.startsOf(run), r.Log)
	}
	s.clean(second)
}

func TestAStartCutShortIsBegunAnew(t *testing.T) {
	e := newFakeEngine(echo)
	e.opened = make(chan int64)
	s := newStation(t, e, "")
	first := s.start()
	task := s.task(nil)
	<-e.opened
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	e.opened = nil
	second := s.start()
	r := s.result(task)
	if r.Status != standin.StatusCompleted || e.startsOf(r.RunID) != 1 {
		t.Errorf("status %s, started %d times", r.Status, e.startsOf(r.RunID))
	}
	s.clean(second)
}

func TestWhatIsLeftOfARunThatTheServerHasEndedMeanwhileIsRemoved(t *testing.T) {
	e := newFakeEngine(echo)
	e.opened = make(chan int64)
	s := newStation(t, e, "")
	first := s.start()
	task := s.task(nil)
	<-e.opened
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	e.opened = nil
	if err := s.user.Kill(s.ctx, task); err != nil {
		t.Fatal(err)
	}
	second := s.start()
	s.clean(second)
	run := s.srv.RunsOf(task)[0]
	if run.Status != standin.StatusKilled || e.startsOf(run.ID) != 0 {
		t.Errorf("status %s, started %d times", run.Status, e.startsOf(run.ID))
	}
}

func TestAnOutcomeWrittenDownIsDeliveredAfterARestart(t *testing.T) {
	gate := make(chan struct{})
	s := newStation(t, newFakeEngine(until(gate)), "")
	first := s.start()
	task := s.task(nil)
	s.waitActive(task)
	in := s.srv.Fault(standin.Fault{Method: http.MethodPatch, Path: "/run/*", Status: http.StatusBadGateway})
	close(gate)
	if err := in.Wait(s.ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	in.Remove()
	second := s.start()
	r := s.result(task)
	if r.Status != standin.StatusCompleted || s.engine.startsOf(r.RunID) != 1 || len(r.Data) == 0 {
		t.Errorf("status %s, data %q, started %d times", r.Status, r.Data, s.engine.startsOf(r.RunID))
	}
	s.clean(second)
}

func TestAnAlgorithmsTokenIsAcceptedAndAnothersRefused(t *testing.T) {
	codes := make(chan [2]int, 1)
	s := newStation(t, newFakeEngine(func(r *fakeRun) int {
		own, err := os.ReadFile(r.file("token"))
		if err != nil {
			return 9
		}
		codes <- [2]int{r.request(http.MethodGet, "/organization?page=1", string(own)), r.request(http.MethodGet, "/organization", "another")}
		return echo(r)
	}), "")
	s.start()
	s.result(s.task(nil))
	if got := <-codes; got != [2]int{http.StatusOK, http.StatusForbidden} {
		t.Errorf("own token %d, another %d", got[0], got[1])
	}
}

func TestANodeWaitsForAServerThatIsAway(t *testing.T) {
	s := newStation(t, newFakeEngine(echo), "")
	s.srv.Stop()
	s.start()
	if err := s.srv.Start(); err != nil {
		t.Fatal(err)
	}
	if r := s.result(s.task(nil)); r.Status != standin.StatusCompleted {
		t.Errorf("status %s", r.Status)
	}
}

func TestANodeThatCannotWorkSaysWhyAndEnds(t *testing.T) {
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, key.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	encrypted := fmt.Sprintf("encryption:\n  enabled: true\n  private_key: %s\n", file)
	t.Run("a wrong API key", func(t *testing.T) {
		s := newStation(t, newFakeEngine(echo), "")
		s.srv.RevokeKey(s.node)
		if err := <-s.start().ended; !errors.Is(err, server.ErrBadAPIKey) {
			t.Errorf("%v", err)
		}
	})
	t.Run("encryption only at the server", func(t *testing.T) {
		s := newStation(t, newFakeEngine(echo), encrypted)
		s.yaml = ""
		if err := <-s.start().ended; !errors.Is(err, ErrEncryption) || !strings.Contains(err.Error(), "enabled to true") {
			t.Errorf("%v", err)
		}
	})
	t.Run("encryption only here", func(t *testing.T) {
		s := newStation(t, newFakeEngine(echo), "")
		s.yaml = encrypted
		if err := <-s.start().ended; !errors.Is(err, ErrEncryption) || !strings.Contains(err.Error(), "enabled to false") {
			t.Errorf("%v", err)
		}
	})
	t.Run("another organization's key", func(t *testing.T) {
		s := newStation(t, newFakeEngine(echo), encrypted)
		other, err := e2e.GeneratePrivateKey(2048)
		if err != nil {
			t.Fatal(err)
		}
		s.srv.SetPublicKey(s.org, other.Public().Base64())
		if err := <-s.start().ended; !errors.Is(err, ErrEncryption) || !strings.Contains(err.Error(), "not the one of organization") {
			t.Errorf("%v", err)
		}
	})
	t.Run("no key", func(t *testing.T) {
		s := newStation(t, newFakeEngine(echo), strings.Replace(encrypted, file, "/nowhere/key.pem", 1))
		if err := <-s.start().ended; !errors.Is(err, ErrEncryption) || !strings.Contains(err.Error(), "/nowhere/key.pem") {
			t.Errorf("%v", err)
		}
	})
}

func TestAnEncryptedRunIsReadAndAnsweredEncrypted(t *testing.T) {
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, key.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStation(t, newFakeEngine(echo), fmt.Sprintf("encryption:\n  enabled: true\n  private_key: %s\n", file))
	n := s.start()
	if err := s.srv.WaitNode(s.ctx, s.node, true); err != nil {
		t.Fatal(err)
	}
	if s.user, err = standin.NewResearcher(s.ctx, s.srv.URL(), "user", "password", key); err != nil {
		t.Fatal(err)
	}
	task := s.task(map[string]any{"secret": 42})
	if r := s.result(task); r.Status != standin.StatusCompleted || !strings.Contains(string(r.Data), `"secret":42`) {
		t.Errorf("status %s, data %s, log %s", r.Status, r.Data, r.Log)
	}
	if stored := s.srv.RunsOf(task)[0].Result; stored == nil || strings.Count(*stored, "$") != 2 {
		t.Error("the stored result is not encrypted")
	}
	// Input that nobody can decrypt.
	other, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := other.Public().Encrypt([]byte(`{"method":"echo"}`))
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.user.CreateTask(s.ctx, standin.TaskSpec{
		Name: "foreign", Image: testImage, Collaboration: s.collab, Organizations: []int64{s.org}, Method: "echo",
		RawInputs: map[int64]string{s.org: enc},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := s.result(id); r.Status != standin.StatusStartFailed || !strings.Contains(r.Log, "cannot be decrypted") {
		t.Errorf("foreign input: status %s, log %q", r.Status, r.Log)
	}
	s.clean(n)
}

func TestOneStateDirectoryServesOneNode(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(dir); !errors.Is(err, ErrStateInUse) {
		t.Errorf("second node: %v, want ErrStateInUse", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := OpenState(dir)
	if err != nil || second.Instance != first.Instance {
		t.Fatalf("instance %v after a restart, want %s (%v)", second, first.Instance, err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestStatusesCoverEveryReason(t *testing.T) {
	for _, r := range []Reason{
		ReasonCompleted, ReasonCrashed, ReasonNoOutput, ReasonBadOutput, ReasonKilled, ReasonPolicy, ReasonNoImage, ReasonRegistry,
		ReasonDatabase, ReasonInput, ReasonNetwork, ReasonStart, ReasonVanished, ReasonDisk, ReasonUndelivered, ReasonInternal,
		ReasonMemory, ReasonTimeout, ReasonSpace, ReasonLimit, ReasonRoom,
	} {
		if statusOf[r] == "" {
			t.Errorf("reason %q has no status", r)
		}
	}
	if s, ok := statusOf[ReasonGone]; !ok || s != "" {
		t.Errorf("the status of a run that the server does not have is %q", s)
	}
	if len(statusOf) != 22 {
		t.Errorf("%d reasons have a status", len(statusOf))
	}
}
