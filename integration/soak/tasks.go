package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/v6node/v6node/integration/standin"
)

// kind is one sort of task.
type kind struct {
	name, method string
	kwargs       map[string]any
	status       string
	// fits tells whether a result is right; nil where there is none.
	fits func(result []byte) bool
	// parent: it creates subtasks, and talks to its node while it runs, so the
	// death of that node may end it as crashed. It is still ended once.
	parent bool
}

var kinds = []kind{
	{name: "noop", method: "count", status: standin.StatusCompleted, fits: func(b []byte) bool {
		var r struct{ Count int }
		return json.Unmarshal(b, &r) == nil && r.Count == 1 // it counts its executions
	}},
	{name: "failing", method: "exit", kwargs: map[string]any{"code": 3}, status: standin.StatusCrashed},
	{name: "slow", method: "sleep", kwargs: map[string]any{"seconds": 3}, status: standin.StatusCompleted, fits: json.Valid},
	{name: "large output", method: "big_output", kwargs: map[string]any{"bytes": 1 << 20}, status: standin.StatusCompleted, fits: func(b []byte) bool {
		return json.Valid(b) && len(b) > 1<<20
	}},
	{name: "parent", method: "central", kwargs: map[string]any{"column": "age"}, status: standin.StatusCompleted, parent: true, fits: func(b []byte) bool {
		var r struct{ Average float64 }
		return json.Unmarshal(b, &r) == nil && r.Average == 50
	}},
}

// task is one that was sent.
type task struct {
	id   int64
	kind *kind
	took time.Duration
}

// one sends a task and waits for its end. A server that is away is waited for.
func (s *soak) one(ctx context.Context) error {
	k := &kinds[s.number(len(kinds))]
	spec := standin.TaskSpec{
		Name: k.name, Image: s.testalgo.Tag, Collaboration: s.collab, Organizations: []int64{s.orgs[s.number(nodes)]}, Method: k.method, Kwargs: k.kwargs,
	}
	if k.parent {
		spec.Image, spec.Databases = s.average.Tag, []standin.DatabaseSpec{{Label: "default"}}
	}
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	id, err := s.send(wait, spec)
	if err != nil {
		return err
	}
	if _, err := s.lab.Server.WaitTask(wait, id); err != nil {
		return fmt.Errorf("task %d (%s) was not over after %v: %w", id, k.name, time.Since(began).Round(time.Second), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = append(s.tasks, task{id: id, kind: k, took: time.Since(began)})
	return nil
}

func (s *soak) send(ctx context.Context, spec standin.TaskSpec) (int64, error) {
	for {
		id, err := s.user.CreateTask(ctx, spec)
		if err == nil {
			return id, nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("send a task: %w", err)
		}
	}
}

// judge looks at all runs that the server knows.
func (s *soak) judge() error {
	var wrong []error
	for _, t := range s.tasks {
		for _, id := range append([]int64{t.id}, s.lab.Server.Children(t.id)...) {
			for _, r := range s.lab.Server.RunsOf(id) {
				if err := s.judgeRun(t, id == t.id, r); err != nil {
					wrong = append(wrong, err)
				}
			}
		}
	}
	if len(wrong) > 20 {
		wrong = append(wrong[:20], fmt.Errorf("and %d more", len(wrong)-20))
	}
	return errors.Join(wrong...)
}

func (s *soak) judgeRun(t task, own bool, r standin.RunRecord) error {
	finals := 0
	for _, e := range r.History {
		if e.Code == http.StatusOK && e.Field("finished_at") != "" {
			finals++
		}
	}
	log := ""
	if r.Log != nil {
		log = *r.Log
	}
	last := log[strings.LastIndex(log, "\n")+1:]
	if r.FinishedAt == nil || finals != 1 {
		return fmt.Errorf("run %d of task %d (%s) is %q with %d final reports", r.ID, r.TaskID, t.kind.name, r.Status, finals)
	}
	if t.kind.parent && r.Status == standin.StatusCrashed {
		s.struck["parents and subtasks that did not outlive it"]++
		return nil
	}
	if !own {
		return nil
	}
	if r.Status != t.kind.status {
		return fmt.Errorf("run %d (%s) ended as %q: %s", r.ID, t.kind.name, r.Status, last)
	}
	if t.kind.fits == nil {
		return nil
	}
	if r.Result == nil {
		return fmt.Errorf("run %d (%s) has no result", r.ID, t.kind.name)
	}
	result, err := base64.StdEncoding.DecodeString(*r.Result)
	if err != nil || !t.kind.fits(result) {
		return fmt.Errorf("run %d (%s) has the result %.200q (%v)", r.ID, t.kind.name, result, err)
	}
	return nil
}

func (s *soak) report() {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	count, runs := map[string]int{}, 0
	var longest time.Duration
	for _, t := range s.tasks {
		count[t.kind.name]++
		longest = max(longest, t.took)
		runs += len(s.lab.Server.RunsOf(t.id))
		for _, c := range s.lab.Server.Children(t.id) {
			runs += len(s.lab.Server.RunsOf(c))
		}
	}
	fmt.Fprintf(w, "runs\t%d\n", runs)
	for _, k := range kinds {
		fmt.Fprintf(w, "tasks: %s\t%d\n", k.name, count[k.name])
	}
	for _, what := range append(strikeNames(), "parents and subtasks that did not outlive it") {
		fmt.Fprintf(w, "%s\t%d\n", what, s.struck[what])
	}
	fmt.Fprintf(w, "slowest recovery of a node\t%v\n", s.slowest.Round(time.Millisecond))
	fmt.Fprintf(w, "longest task\t%v\n", longest.Round(time.Millisecond))
	for _, n := range s.nodes {
		fmt.Fprintf(w, "%s: most memory, most open files\t%d MiB, %d\n", n.Name, n.use.memory>>20, n.use.files)
	}
	_ = w.Flush() // standard output
}
