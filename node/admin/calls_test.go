package admin_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admin/admintest"
)

var day = time.Date(2026, 8, 9, 10, 0, 0, 123456789, time.UTC)

// world is a station with something of everything.
func world() *admintest.Station {
	adj := int64(500)
	j := admin.NewJournal(16)
	j.Add(admin.Event{Time: day, Type: admin.EventStarted, Run: 103, Task: 12, Message: "m", Attributes: map[string]string{"k": "v"}})
	run := &admin.Run{ID: 103, Task: 12, Image: "i", State: admin.Running, ReceivedAt: day}
	return &admintest.Station{
		RunList: []*admin.Run{
			{ID: 104, Task: 13, Image: "j", State: admin.Queued, ReceivedAt: day},
			{ID: 105, Task: 14, Image: "j", State: admin.Held, ReceivedAt: day, Approval: &admin.Approval{Reason: "r", Pinned: "j@d", AskedAt: day}},
			run,
			{ID: 101, Task: 11, Image: "k", State: admin.Done, Outcome: &admin.Outcome{Reason: "crashed", ExitCode: 3, Started: true}},
		},
		Inspections: map[int64]*admin.Inspection{103: {Run: *run, Limits: admin.LimitsState{Asked: &admin.Limits{Memory: 1, OOMScoreAdj: &adj}}, Problems: []string{"p"}}},
		Lines:       map[int64][]*admin.LogLine{103: {{Time: day, Stream: "stdout", Text: []byte("a\xff\x00")}, {Time: day, Stream: "stderr", Text: []byte("b"), Partial: true}}},
		Usage:       func() []admin.Usage { return []admin.Usage{{Run: 103, Time: day, CPUNanos: 5, Memory: 7}} },
		Processes:   map[int64][]admin.Process{103: {{PID: 4, Command: "sleep"}}},
		Effective:   admin.Limits{Memory: 64 << 20},
		Journal:     j,
		Waiting:     []admin.Waiting{{Position: 1, Run: 104, Needs: admin.Resources{Devices: map[string]int64{"d": 2}}}},
		Information: admin.Info{Node: admin.NodeInfo{ID: 7, Name: "n"}},
		Changed:     admin.Change{Applied: []string{"policies"}, Restart: []string{"api_key"}, Warnings: []string{"w"}},
		Garbage:     admin.GCReport{Items: []admin.GCItem{{Kind: "image", Size: 9}}, Freed: 9},
	}
}

// collect returns a callback and what it got.
func collect[T any]() (*[]T, func(*T) error) {
	out := new([]T)
	return out, func(v *T) error { *out = append(*out, *v); return nil }
}

// everything calls each method of a station and returns all answers.
func everything(ctx context.Context, s admin.Station) ([]any, error) {
	var answers []any
	var errs []error
	add := func(v any, err error) { answers, errs = append(answers, v), append(errs, err) }
	tail, memory, mems := 1, int64(1<<30), "0"
	runs, onRun := collect[admin.Run]()
	add(runs, s.Runs(ctx, admin.RunQuery{}, onRun))
	all, onAll := collect[admin.Run]()
	add(all, s.Runs(ctx, admin.RunQuery{All: true}, onAll))
	add(s.Inspect(ctx, 103))
	lines, onLine := collect[admin.LogLine]()
	add(lines, s.Logs(ctx, 103, admin.LogOptions{}, onLine))
	few, onFew := collect[admin.LogLine]()
	add(few, s.Logs(ctx, 103, admin.LogOptions{Since: day, Tail: &tail}, onFew))
	add(s.Stats(ctx, nil))
	add(s.Stats(ctx, []int64{103, 101}))
	add(s.Top(ctx, 103))
	add(nil, s.Kill(ctx, 103))
	add(nil, s.Approve(ctx, 105))
	add(nil, s.Deny(ctx, 105, "no \"data\" for this"))
	add(s.Reload(ctx))
	add(s.Update(ctx, 103, admin.LimitChange{Memory: &memory, CpusetMems: &mems}))
	events, onEvent := collect[admin.Event]()
	add(events, s.Events(ctx, admin.EventOptions{Since: day}, onEvent))
	later, onLater := collect[admin.Event]()
	add(later, s.Events(ctx, admin.EventOptions{Since: day.Add(1)}, onLater))
	add(s.Queue(ctx))
	add(nil, s.Pause(ctx))
	add(nil, s.Resume(ctx))
	add(s.Info(ctx))
	add(s.GC(ctx, admin.GCOptions{DryRun: true}))
	add(s.GC(ctx, admin.GCOptions{All: true}))
	return answers, errors.Join(errs...)
}

func TestTheClientAnswersAsTheStationDoes(t *testing.T) {
	direct, served := world(), world()
	client := admin.NewClient(admintest.Serve(t, served, admin.ServerOptions{}))
	want, err := everything(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	got, err := everything(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("answer %d (%s) is\n%+v, want\n%+v", i, direct.Calls()[i], got[i], want[i])
		}
	}
	if !slices.Equal(served.Calls(), direct.Calls()) {
		t.Errorf("the station was asked\n%q, want\n%q", served.Calls(), direct.Calls())
	}
	if v, err := client.Version(t.Context()); err != nil || v.Version != "1.2.3" || v.Protocol != admin.Protocol {
		t.Errorf("version: %+v, %v", v, err)
	}
}

func TestErrorsKeepTheirKindAndSentence(t *testing.T) {
	s := world()
	client := admin.NewClient(admintest.Serve(t, s, admin.ServerOptions{}))
	for _, kind := range []error{admin.ErrNotFound, admin.ErrState, admin.ErrInvalid, admin.ErrUnsupported, admin.ErrBusy, admin.ErrInternal} {
		fail := admin.Problemf(kind, "the sentence of %v", kind)
		s.OnKill = func(context.Context, int64) error { return fail }
		s.OnLogs = func(context.Context, int64, admin.LogOptions, func(*admin.LogLine) error) error { return fail }
		for what, err := range map[string]error{
			"an answer": client.Kill(t.Context(), 103),
			"a stream":  client.Logs(t.Context(), 103, admin.LogOptions{}, nil),
		} {
			if !errors.Is(err, kind) || err.Error() != fail.Message {
				t.Errorf("%s: %v is not %q of kind %v", what, err, fail, kind)
			}
		}
	}
	s.OnKill = func(context.Context, int64) error { return errors.New("plain") }
	if err := client.Kill(t.Context(), 103); !errors.Is(err, admin.ErrInternal) || err.Error() != "plain" {
		t.Errorf("an error without kind became %v", err)
	}
}

func TestAnErrorOfTheCallbackEndsTheStream(t *testing.T) {
	s := world()
	client := admin.NewClient(admintest.Serve(t, s, admin.ServerOptions{}))
	enough := errors.New("enough")
	n := 0
	if err := client.Runs(t.Context(), admin.RunQuery{All: true}, func(*admin.Run) error { n++; return enough }); err != enough || n != 1 {
		t.Errorf("%v after %d runs", err, n)
	}
	<-s.Idle()
}

func TestWatchComparesWithTheSampleBefore(t *testing.T) {
	s := world()
	sample := 0
	s.Usage = func() []admin.Usage {
		sample++
		if sample == 4 {
			return nil
		}
		at := day.Add(time.Duration(sample) * time.Second)
		return []admin.Usage{
			{Run: 103, Time: at, StartedAt: day, CPUNanos: []int64{0, 5e8, 25e8, 1e8}[sample], Memory: 32, MemoryLimit: 128},
			{Run: 101, Time: at},
		}
	}
	client := admin.NewClient(admintest.Serve(t, s, admin.ServerOptions{}))
	frames, onFrame := collect[admin.StatsFrame]()
	if err := client.Watch(t.Context(), []int64{103, 101}, admin.MinInterval, onFrame); err != nil {
		t.Fatal(err)
	}
	// Since the start; since the sample before; since the start again, because
	// a counter that fell is another attempt's.
	var got []float64
	for _, f := range *frames {
		if len(f.Runs) != 2 || f.Runs[0].Run != 101 || f.Runs[0].CPUPercent != 0 || f.Runs[1].MemoryPercent != 25 {
			t.Fatalf("frame %+v", f)
		}
		got = append(got, f.Runs[1].CPUPercent)
	}
	if want := []float64{50, 200, 100.0 / 30}; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] < 3.33 || got[2] > 3.34 {
		t.Errorf("cpu %v, want %v", got, want)
	}
}

func TestWatchRefusesARunThatDoesNotLive(t *testing.T) {
	client := admin.NewClient(admintest.Serve(t, world(), admin.ServerOptions{}))
	err := client.Watch(t.Context(), []int64{103, 101}, time.Second, nil)
	if !errors.Is(err, admin.ErrState) || !strings.Contains(err.Error(), "101") {
		t.Errorf("a run that is over: %v", err)
	}
	if err := client.Watch(t.Context(), []int64{9}, time.Second, nil); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("an unknown run: %v", err)
	}
	for _, interval := range []time.Duration{0, time.Millisecond, 2 * time.Hour} {
		if err := client.Watch(t.Context(), nil, interval, nil); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("interval %v: %v", interval, err)
		}
	}
}

func TestADenialsWordsAreOneShortLine(t *testing.T) {
	s := world()
	client := admin.NewClient(admintest.Serve(t, s, admin.ServerOptions{}))
	for _, words := range []string{"two\nlines", "\x1b[2J", strings.Repeat("x", admin.MaxWords+1)} {
		if err := client.Deny(t.Context(), 105, words); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%.20q: %v", words, err)
		}
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("the station was asked %q", calls)
	}
}
