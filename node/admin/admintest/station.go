// Package admintest has a Station for tests: its answers are its fields, and it
// writes down what it was asked. Nothing but tests may import it.
package admintest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"log/slog"

	"github.com/v6node/v6node/node/admin"
)

// Station answers with what it holds. Set the fields before it is used. The
// functions, where set, take the place of the method.
type Station struct {
	RunList     []*admin.Run // the highest id first
	Inspections map[int64]*admin.Inspection
	Lines       map[int64][]*admin.LogLine
	Usage       func() []admin.Usage
	Processes   map[int64][]admin.Process
	Effective   admin.Limits
	Journal     *admin.Journal
	Waiting     []admin.Waiting
	Information admin.Info
	Garbage     admin.GCReport
	Changed     admin.Change

	OnLogs func(ctx context.Context, run int64, o admin.LogOptions, fn func(*admin.LogLine) error) error
	OnKill func(ctx context.Context, run int64) error
	OnInfo func(ctx context.Context) (*admin.Info, error)

	OnReload func(ctx context.Context) (*admin.Change, error)

	mu     sync.Mutex
	calls  []string
	active int
	idle   chan struct{} // closed when no call is under way
}

var _ admin.Station = (*Station)(nil)

// Calls returns what was asked so far, as "method argument...".
func (s *Station) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Idle returns a channel that is closed when no call is under way.
func (s *Station) Idle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	return s.idle
}

// Active returns how many calls are under way.
func (s *Station) Active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// called writes a call down; what it returns ends it.
func (s *Station) called(method string, args ...any) func() {
	text := method
	for _, a := range args {
		raw, err := json.Marshal(a)
		if err != nil {
			panic(err)
		}
		text += " " + string(raw)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, text)
	if s.active == 0 {
		s.idle = make(chan struct{})
	}
	s.active++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.active--; s.active == 0 {
			close(s.idle)
		}
	}
}

func (s *Station) run(id int64) (*admin.Run, error) {
	for _, r := range s.RunList {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, admin.Problemf(admin.ErrNotFound, "the node knows no run %d", id)
}

// living returns a run that occupies the machine.
func (s *Station) living(id int64) (*admin.Run, error) {
	r, err := s.run(id)
	if err == nil && (r.State.Over() || r.State.Waits()) {
		return nil, admin.Problemf(admin.ErrState, "run %d is %s", id, r.State)
	}
	return r, err
}

// Runs is Station.Runs.
func (s *Station) Runs(ctx context.Context, q admin.RunQuery, fn func(*admin.Run) error) error {
	defer s.called("Runs", q)()
	for _, r := range s.RunList {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !q.All && (r.State == admin.Queued || r.State == admin.Done) {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// Inspect is Station.Inspect.
func (s *Station) Inspect(_ context.Context, run int64) (*admin.Inspection, error) {
	defer s.called("Inspect", run)()
	if i, ok := s.Inspections[run]; ok {
		return i, nil
	}
	r, err := s.run(run)
	if err != nil {
		return nil, err
	}
	return &admin.Inspection{Run: *r, Node: "v6abcdefgh"}, nil
}

// Logs is Station.Logs. A followed log ends with ctx.
func (s *Station) Logs(ctx context.Context, run int64, o admin.LogOptions, fn func(*admin.LogLine) error) error {
	defer s.called("Logs", run, o)()
	if s.OnLogs != nil {
		return s.OnLogs(ctx, run, o, fn)
	}
	if _, err := s.run(run); err != nil {
		return err
	}
	var lines []*admin.LogLine
	for _, l := range s.Lines[run] {
		if !l.Time.Before(o.Since) {
			lines = append(lines, l)
		}
	}
	if o.Tail != nil {
		lines = lines[max(0, len(lines)-*o.Tail):]
	}
	for _, l := range lines {
		if err := fn(l); err != nil {
			return err
		}
	}
	if o.Follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Stats is Station.Stats.
func (s *Station) Stats(_ context.Context, runs []int64) ([]admin.Usage, error) {
	defer s.called("Stats", runs)()
	out := []admin.Usage{}
	for _, id := range runs {
		if _, err := s.run(id); err != nil {
			return nil, err
		}
	}
	if s.Usage == nil {
		return out, nil
	}
	for _, u := range s.Usage() {
		if len(runs) == 0 || slices.Contains(runs, u.Run) {
			out = append(out, u)
		}
	}
	return out, nil
}

// Top is Station.Top.
func (s *Station) Top(_ context.Context, run int64) ([]admin.Process, error) {
	defer s.called("Top", run)()
	if _, err := s.living(run); err != nil {
		return nil, err
	}
	return s.Processes[run], nil
}

// Kill is Station.Kill.
func (s *Station) Kill(ctx context.Context, run int64) error {
	defer s.called("Kill", run)()
	if s.OnKill != nil {
		return s.OnKill(ctx, run)
	}
	r, err := s.run(run)
	if err == nil && r.State.Over() {
		err = admin.Problemf(admin.ErrState, "run %d is over: there is nothing to kill", run)
	}
	return err
}

// Approve is Station.Approve.
func (s *Station) Approve(_ context.Context, run int64) error {
	defer s.called("Approve", run)()
	return s.held(run)
}

// Deny is Station.Deny.
func (s *Station) Deny(_ context.Context, run int64, words string) error {
	defer s.called("Deny", run, words)()
	return s.held(run)
}

func (s *Station) held(run int64) error {
	r, err := s.run(run)
	if err == nil && r.State != admin.Held {
		err = admin.Problemf(admin.ErrState, "run %d does not wait for approval: it is %s", run, r.State)
	}
	return err
}

// Reload is Station.Reload.
func (s *Station) Reload(ctx context.Context) (*admin.Change, error) {
	defer s.called("Reload")()
	if s.OnReload != nil {
		return s.OnReload(ctx)
	}
	c := s.Changed
	return &c, nil
}

// Update is Station.Update: it returns Effective with the change made.
func (s *Station) Update(_ context.Context, run int64, c admin.LimitChange) (*admin.Limits, error) {
	defer s.called("Update", run, c)()
	if _, err := s.living(run); err != nil {
		return nil, err
	}
	l := s.Effective
	if c.Memory != nil {
		l.Memory = *c.Memory
	}
	if c.CPUs != nil {
		l.CPUs = *c.CPUs
	}
	if c.Pids != nil {
		l.Pids = *c.Pids
	}
	return &l, nil
}

// Events is Station.Events.
func (s *Station) Events(ctx context.Context, o admin.EventOptions, fn func(*admin.Event) error) error {
	defer s.called("Events", o)()
	return s.Journal.Read(ctx, o, fn)
}

// Queue is Station.Queue.
func (s *Station) Queue(context.Context) ([]admin.Waiting, error) {
	defer s.called("Queue")()
	return s.Waiting, nil
}

// Pause is Station.Pause.
func (s *Station) Pause(context.Context) error {
	defer s.called("Pause")()
	s.setPaused(true)
	return nil
}

// Resume is Station.Resume.
func (s *Station) Resume(context.Context) error {
	defer s.called("Resume")()
	s.setPaused(false)
	return nil
}

func (s *Station) setPaused(p bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Information.Node.Paused = p
}

// Info is Station.Info.
func (s *Station) Info(ctx context.Context) (*admin.Info, error) {
	defer s.called("Info")()
	if s.OnInfo != nil {
		return s.OnInfo(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.Information
	return &i, nil
}

// GC is Station.GC.
func (s *Station) GC(_ context.Context, o admin.GCOptions) (*admin.GCReport, error) {
	defer s.called("GC", o.DryRun, o.All)()
	r := s.Garbage
	r.DryRun = o.DryRun
	return &r, nil
}

// Serve serves a station in a state directory of its own until the test ends,
// and returns the directory. Zero options are filled in.
func Serve(t testing.TB, s admin.Station, o admin.ServerOptions) (dir string) {
	t.Helper()
	dir = t.TempDir()
	stop := ServeAt(t, dir, s, o)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return dir
}

// ServeAt serves a station in dir until stop is called, which returns what
// Serve did.
func ServeAt(t testing.TB, dir string, s admin.Station, o admin.ServerOptions) (stop func() error) {
	t.Helper()
	l, err := admin.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Station = s
	if o.Version == "" {
		o.Version = "1.2.3"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- admin.NewServer(o).Serve(ctx, l) }()
	return sync.OnceValue(func() error {
		cancel()
		if err := <-ended; err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
}
