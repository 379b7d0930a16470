package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

const (
	eventLimit   = 20000
	requestLimit = 20000
)

// RunEventKind says what happened to a run.
type RunEventKind string

// Kinds of run events.
const (
	RunCreated           RunEventKind = "created"
	RunPatched           RunEventKind = "patched"
	RunPatchRefused      RunEventKind = "patch refused"
	RunKilled            RunEventKind = "killed by a user"
	RunFailedWithSibling RunEventKind = "failed with a sibling"
	PortsReleased        RunEventKind = "ports released"
	RunReopened          RunEventKind = "reopened"
)

// RunEvent is one entry of a run's history.
type RunEvent struct {
	At     time.Time // with a monotonic reading: differences are exact
	Kind   RunEventKind
	Status string                     // of the run, afterwards
	Code   int                        // HTTP status of a PATCH
	Body   map[string]json.RawMessage // of a PATCH; values above 1 MiB are replaced by null
	By     int64                      // node or user
}

// Field returns a string field of a PATCH's body, "" when it is absent.
func (e RunEvent) Field(key string) string { return fields(e.Body).plain(key) }

// recordedValue is the largest value of a PATCH that the history keeps: results of
// hundreds of megabytes are in the run already.
const recordedValue = 1 << 20

// record adds to a run's history. Callers hold the lock.
func (s *Server) record(r *run, e RunEvent) {
	for k, v := range e.Body {
		if len(v) > recordedValue {
			e.Body[k] = json.RawMessage("null")
		}
	}
	e.At, e.Status = time.Now(), r.status
	r.history = append(r.history, e)
	s.changedLocked()
}

// RunRecord is a run as the observer sees it.
type RunRecord struct {
	ID, TaskID, OrganizationID int64
	Status                     string
	Result, Log                *string // nil = NULL
	StartedAt, FinishedAt      *time.Time
	History                    []RunEvent
}

// Count returns how many events of a kind the history holds.
func (r RunRecord) Count(kind RunEventKind) int {
	n := 0
	for _, e := range r.History {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// First returns the time of the first event that matches, and whether there is one.
func (r RunRecord) First(match func(RunEvent) bool) (time.Time, bool) {
	for _, e := range r.History {
		if match(e) {
			return e.At, true
		}
	}
	return time.Time{}, false
}

// CreatedAt is when the task was posted.
func (r RunRecord) CreatedAt() time.Time { return r.History[0].At }

func (r *run) snapshot() RunRecord {
	return RunRecord{
		ID: r.id, TaskID: r.task.id, OrganizationID: r.org, Status: r.status, Result: r.result, Log: r.log,
		StartedAt: r.started, FinishedAt: r.finished, History: append([]RunEvent(nil), r.history...),
	}
}

// Run returns a run's record; ok is false when there is no such run.
func (s *Server) Run(id int64) (rec RunRecord, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[id]
	if r == nil {
		return RunRecord{}, false
	}
	return r.snapshot(), true
}

// RunsOf returns the records of a task's runs, in the order of its organizations.
func (s *Server) RunsOf(taskID int64) []RunRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []RunRecord
	if t := s.tasks[taskID]; t != nil {
		for _, r := range t.runs {
			list = append(list, r.snapshot())
		}
	}
	return list
}

// Children returns the numbers of a task's subtasks, oldest first.
func (s *Server) Children(taskID int64) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []int64
	for _, t := range newestFirst(s.tasks, func(t *task) bool { return t.parent == taskID }) {
		ids = append([]int64{t.id}, ids...)
	}
	return ids
}

// TaskStatus returns a task's status, "" when there is no such task.
func (s *Server) TaskStatus(id int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[id]; t != nil {
		return t.status()
	}
	return ""
}

// WaitRun waits until a run has the given status ("" = any status, finished_at
// set) and returns its record.
func (s *Server) WaitRun(ctx context.Context, id int64, status string) (RunRecord, error) {
	return s.WaitRunFor(ctx, id, func(r RunRecord) bool {
		if status == "" {
			return r.FinishedAt != nil
		}
		return r.Status == status
	})
}

// WaitRunFor waits until a run's record satisfies cond.
func (s *Server) WaitRunFor(ctx context.Context, id int64, cond func(RunRecord) bool) (RunRecord, error) {
	var rec RunRecord
	err := s.wait(ctx, func() bool {
		r := s.runs[id]
		if r == nil {
			return false
		}
		rec = r.snapshot()
		return cond(rec)
	})
	if err != nil {
		return rec, fmt.Errorf("run %d did not get that far, its status is %q: %w", id, rec.Status, err)
	}
	return rec, nil
}

// WaitTask waits until every run of a task has finished_at set and returns the
// task's status.
func (s *Server) WaitTask(ctx context.Context, id int64) (string, error) {
	status := ""
	err := s.wait(ctx, func() bool {
		t := s.tasks[id]
		if t == nil {
			return false
		}
		status = t.status()
		for _, r := range t.runs {
			if r.finished == nil {
				return false
			}
		}
		return true
	})
	if err != nil {
		return status, fmt.Errorf("task %d did not finish, its status is %q: %w", id, status, err)
	}
	return status, nil
}

// WaitChildren waits until a task has n subtasks and returns their numbers, oldest
// first.
func (s *Server) WaitChildren(ctx context.Context, id int64, n int) ([]int64, error) {
	err := s.wait(ctx, func() bool {
		count := 0
		for _, t := range s.tasks {
			if t.parent == id {
				count++
			}
		}
		return count >= n
	})
	return s.Children(id), err
}

// NodeOnline reports whether a node is online.
func (s *Server) NodeOnline(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	return n != nil && n.online
}

// WaitNode waits until a node is online or offline.
func (s *Server) WaitNode(ctx context.Context, id int64, online bool) error {
	if err := s.wait(ctx, func() bool { n := s.nodes[id]; return n != nil && n.online == online }); err != nil {
		return fmt.Errorf("node %d did not become online=%t: %w", id, online, err)
	}
	return nil
}

// NodeConfig returns the rows that a node shared about itself, by key.
func (s *Server) NodeConfig(id int64) map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := map[string][]string{}
	if n := s.nodes[id]; n != nil {
		for _, r := range n.config {
			rows[r.key] = append(rows[r.key], r.value)
		}
	}
	return rows
}

// PublicKey returns the public key that an organization has on the server, "" when
// there is none.
func (s *Server) PublicKey(org int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orgs[org].publicKey
}

// NodeEvent is one event that a client sent over its socket.
type NodeEvent struct {
	At     time.Time
	NodeID int64 // or the user's number
	Name   string
	Args   []json.RawMessage
}

// decode reads the first argument.
func (e NodeEvent) decode(v any) bool {
	return len(e.Args) > 0 && json.Unmarshal(e.Args[0], v) == nil
}

// NodeEvents returns the events that match, oldest first. Only the latest ones are
// kept, at least 10 000.
func (s *Server) NodeEvents(match func(NodeEvent) bool) []NodeEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return filter(s.events, match)
}

// WaitNodeEvent waits until an event that matches has arrived (or had already) and
// returns the first such.
func (s *Server) WaitNodeEvent(ctx context.Context, match func(NodeEvent) bool) (NodeEvent, error) {
	var found NodeEvent
	err := s.wait(ctx, func() bool {
		for _, e := range s.events {
			if match(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found, err
}

// Request is one HTTP request that the server answered or dropped.
type Request struct {
	At     time.Time // arrival
	Took   time.Duration
	Method string
	Path   string // beneath the API path
	Query  string
	Status int   // 0 = dropped without an answer
	Who    int64 // node or user of the token; a container counts as its node
}

// Requests returns the requests that match, oldest first. Only the latest ones are
// kept, at least 10 000.
func (s *Server) Requests(match func(Request) bool) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return filter(s.reqLog, match)
}

// WaitRequests waits until at least n requests that match have been answered.
func (s *Server) WaitRequests(ctx context.Context, n int, match func(Request) bool) error {
	return s.wait(ctx, func() bool { return len(filter(s.reqLog, match)) >= n })
}

func filter[T any](list []T, match func(T) bool) []T {
	var kept []T
	for _, v := range list {
		if match(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
