package node

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/runtime"
)

// fakeEngine runs algorithms as functions of the test. It is honest about
// state: what was not created cannot start, what was removed is gone. It
// outlives the nodes that use it, as a runtime does.
type fakeEngine struct {
	algorithm func(*fakeRun) int // returns the exit code

	mu        sync.Mutex
	serial    int
	runs      map[string]*fakeRun // by container id
	boxes     map[string]int64    // sandbox id -> run id
	gates     map[string]http.Handler
	doors     map[int64][]engine.Door
	starts    map[int64]int
	openErr   error
	fail      func(step string, s *engine.Spec) error  // nil fails nothing
	reopenErr error                                    // what ReopenLog answers
	verify    func(s *engine.Spec, started bool) error // nil is content
	opened    chan int64                               // if not nil, receives each Open and blocks it until taken
}

// fakeRun is one container of the fake.
type fakeRun struct {
	spec    engine.Spec
	sandbox string
	engine  *fakeEngine
	stop    chan struct{} // closed by Stop
	done    chan struct{} // closed at the end
	started bool
	exit    engine.Exit
	once    sync.Once
}

func newFakeEngine(algorithm func(*fakeRun) int) *fakeEngine {
	return &fakeEngine{algorithm: algorithm, runs: map[string]*fakeRun{}, boxes: map[string]int64{}, gates: map[string]http.Handler{}, doors: map[int64][]engine.Door{}, starts: map[int64]int{}}
}

func (e *fakeEngine) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (e *fakeEngine) Open(ctx context.Context, s *engine.Spec) (string, error) {
	if e.opened != nil {
		select {
		case e.opened <- s.RunID:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		<-ctx.Done() // as long as the test wants
		return "", ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.openErr != nil {
		return "", e.openErr
	}
	if err := e.failing("open", s); err != nil {
		return "", err
	}
	e.serial++
	id := fmt.Sprintf("sandbox-%d", e.serial)
	e.boxes[id] = s.RunID
	return id, nil
}

func (e *fakeEngine) Gateway(_ context.Context, runID int64, sandbox string, _ int, h http.Handler, doors ...engine.Door) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.boxes[sandbox] != runID {
		return engine.ErrVanished
	}
	e.gates[sandbox] = h
	e.doors[runID] = doors
	return nil
}

func (e *fakeEngine) Create(_ context.Context, s *engine.Spec, sandbox string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.boxes[sandbox] != s.RunID {
		return "", engine.ErrVanished
	}
	if err := e.failing("create", s); err != nil {
		return "", err
	}
	e.serial++
	id := fmt.Sprintf("container-%d", e.serial)
	e.runs[id] = &fakeRun{spec: *s, sandbox: sandbox, engine: e, stop: make(chan struct{}), done: make(chan struct{})}
	return id, nil
}

func (e *fakeEngine) Start(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runs[id]
	if r == nil || r.started {
		return fmt.Errorf("start %s: %w", id, engine.ErrVanished)
	}
	if err := e.failing("start", &r.spec); err != nil {
		return err
	}
	r.started = true
	e.starts[r.spec.RunID]++
	go func() {
		begin := time.Now()
		code := e.algorithm(r)
		e.mu.Lock()
		r.exit = engine.Exit{Code: code, StartedAt: begin, FinishedAt: time.Now()}
		e.mu.Unlock()
		close(r.done)
	}()
	return e.failing("started", &r.spec)
}

func (e *fakeEngine) failing(step string, s *engine.Spec) error {
	if e.fail == nil {
		return nil
	}
	return e.fail(step, s)
}

func (e *fakeEngine) Wait(ctx context.Context, _ int64, id string) (*engine.Exit, error) {
	e.mu.Lock()
	r := e.runs[id]
	e.mu.Unlock()
	if r == nil {
		return nil, engine.ErrVanished
	}
	select {
	case <-r.done:
		e.mu.Lock()
		defer e.mu.Unlock()
		exit := r.exit
		return &exit, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ReopenLog begins a new file, as a runtime does.
func (e *fakeEngine) ReopenLog(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runs[id]
	if r == nil {
		return engine.ErrVanished
	}
	if e.reopenErr != nil {
		return e.reopenErr
	}
	f, err := os.OpenFile(filepath.Join(r.spec.LogDir, r.spec.LogName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (e *fakeEngine) Verify(_ context.Context, s *engine.Spec, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.verify == nil {
		return nil
	}
	return e.verify(s, e.runs[id] != nil && e.runs[id].started)
}

func (e *fakeEngine) Processes(context.Context, int64) ([]int, error) { return []int{os.Getpid()}, nil }

func (e *fakeEngine) Stop(_ context.Context, id string, _ time.Duration) error {
	e.mu.Lock()
	r := e.runs[id]
	if r != nil {
		if err := e.failing("stop", &r.spec); err != nil {
			e.mu.Unlock()
			return err
		}
	}
	e.mu.Unlock()
	if r != nil && r.started {
		r.once.Do(func() { close(r.stop) })
		<-r.done
	}
	return nil
}

func (e *fakeEngine) Remove(ctx context.Context, runID int64) error {
	e.mu.Lock()
	if err := e.failing("remove", &engine.Spec{RunID: runID}); err != nil {
		e.mu.Unlock()
		return err
	}
	var mine []string
	for id, r := range e.runs {
		if r.spec.RunID == runID {
			mine = append(mine, id)
		}
	}
	e.mu.Unlock()
	for _, id := range mine {
		if err := e.Stop(ctx, id, 0); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range mine {
		delete(e.runs, id)
	}
	for id, run := range e.boxes {
		if run == runID {
			delete(e.boxes, id)
		}
	}
	return nil
}

func (e *fakeEngine) List(context.Context) ([]engine.Living, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []engine.Living
	for sandbox, run := range e.boxes {
		l := engine.Living{RunID: run, SandboxID: sandbox, Ready: true}
		for id, r := range e.runs {
			if r.sandbox == sandbox {
				l.ContainerID, l.Attempt, l.Started = id, r.spec.Attempt, r.started
				select {
				case <-r.done:
					l.Exited = true
				default:
				}
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// left counts what the fake still holds.
func (e *fakeEngine) left() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.runs) + len(e.boxes)
}

func (e *fakeEngine) startsOf(run int64) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.starts[run]
}

// host is the path on this machine of something that the container sees.
func (r *fakeRun) host(inside string) string {
	for _, m := range r.spec.Mounts {
		if rest, ok := strings.CutPrefix(inside, m.ContainerPath); ok {
			return filepath.Join(m.HostPath, rest)
		}
	}
	return "/nowhere" + inside
}

func (r *fakeRun) file(name string) string {
	return r.host(fmt.Sprintf("/mnt/data/task-%09d/%s", r.spec.RunID, name))
}

// echo is the algorithm that returns its input.
func echo(r *fakeRun) int {
	b, err := os.ReadFile(r.file("input"))
	if err != nil {
		return 2
	}
	if err := os.WriteFile(r.file("output"), b, 0o600); err != nil {
		return 3
	}
	return 0
}

// until runs until it is stopped or ch is closed, then echoes.
func until(ch <-chan struct{}) func(*fakeRun) int {
	return func(r *fakeRun) int {
		select {
		case <-r.stop:
			return 143
		case <-ch:
			return echo(r)
		}
	}
}

// request lets the algorithm ask its proxy.
func (r *fakeRun) request(method, path, token string) int {
	req := httptest.NewRequest(method, path, nil)
	req.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	r.engine.mu.Lock()
	h := r.engine.gates[r.sandbox]
	r.engine.mu.Unlock()
	h.ServeHTTP(w, req)
	return w.Code
}

// fakeImages is a store that holds every image.
type fakeImages struct{}

func (fakeImages) Image(_ context.Context, ref string) (*runtime.Image, error) {
	return &runtime.Image{ID: ref, RepoDigests: []string{ref}}, nil
}

func (fakeImages) PullImage(_ context.Context, ref string, _ *runtime.Auth, _ runtime.PullOptions) (*runtime.Image, error) {
	return &runtime.Image{ID: ref, RepoDigests: []string{ref}}, nil
}

func (fakeImages) RemoveImage(context.Context, string) error { return nil }

func (fakeImages) ListImages(context.Context) ([]*runtime.Image, error) { return nil, nil }

func (fakeImages) ImageDirectories(context.Context) ([]string, error) { return nil, nil }

func (fakeImages) ListContainers(context.Context, map[string]string) ([]*runtime.Container, error) {
	return nil, nil
}
