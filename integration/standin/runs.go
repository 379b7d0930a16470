package standin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// visibleRuns returns the runs that the query asks for, newest first. Callers hold
// the lock.
func (c *call) visibleRuns() ([]*run, *reply) {
	s, q := c.s, c.r.URL.Query()
	keep := func(r *run) bool { return s.maySee(c.who, r.task.collab) }
	and := func(more func(*run) bool) {
		before := keep
		keep = func(r *run) bool { return before(r) && more(r) }
	}
	if q.Has("task_id") {
		t := s.tasks[c.query("task_id")]
		if t == nil {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("Task id=%s does not exist!", q.Get("task_id")))
		}
		if !s.maySee(c.who, t.collab) {
			return nil, lacksPermission()
		}
		and(func(r *run) bool { return r.task == t })
	}
	if q.Has("node_id") {
		n := s.nodes[c.query("node_id")]
		if n == nil {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("Node id=%s does not exist!", q.Get("node_id")))
		}
		if !s.maySee(c.who, n.collab) {
			return nil, lacksPermission()
		}
		and(func(r *run) bool { return r.org == n.org && r.task.collab == n.collab })
	}
	if q.Has("organization_id") {
		and(func(r *run) bool { return r.org == c.query("organization_id") })
	}
	if q.Has("collaboration_id") {
		and(func(r *run) bool { return r.task.collab == c.query("collaboration_id") })
	}
	if q.Get("state") == "open" { // open means: no finished_at, whatever the status says
		and(func(r *run) bool { return r.finished == nil })
	}
	return newestFirst(s.runs, keep), nil
}

func includesTask(c *call) bool { return slices.Contains(c.r.URL.Query()["include"], "task") }

func getRuns(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	list, refusal := c.visibleRuns()
	if refusal != nil {
		return refusal
	}
	return paged(c, list, func(r *run) object { return s.viewRun(r, includesTask(c)) })
}

func getResults(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	list, refusal := c.visibleRuns()
	if refusal != nil {
		return refusal
	}
	return paged(c, list, s.viewResult)
}

// seenRun returns the run in the path if the caller may see it. Callers hold the
// lock.
func (c *call) seenRun() (*run, *reply) {
	r := c.s.runs[c.pathID()]
	if r == nil {
		return nil, runNotFound(c)
	}
	if !c.s.maySee(c.who, r.task.collab) {
		return nil, lacksPermission()
	}
	return r, nil
}

func runNotFound(c *call) *reply {
	return refuse(http.StatusNotFound, fmt.Sprintf("Run id=%s not found!", c.r.PathValue("id")))
}

func getRun(c *call, _ http.ResponseWriter) *reply {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	r, refusal := c.seenRun()
	if refusal != nil {
		return refusal
	}
	return ok(c.s.viewRun(r, includesTask(c)))
}

func getResult(c *call, _ http.ResponseWriter) *reply {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	r, refusal := c.seenRun()
	if refusal != nil {
		return refusal
	}
	return ok(c.s.viewResult(r))
}

// runPatch is a checked body of PATCH /run. Pointers are nil where the key was
// absent.
type runPatch struct {
	status, result, log *string
	started, finished   *time.Time
	crashes             bool // a timestamp that passes the schema and breaks the parser
}

func readRunPatch(f fields) (*runPatch, *reply) {
	if bad := f.allow("started_at", "finished_at", "log", "result", "status"); bad != nil {
		return nil, bad
	}
	p := &runPatch{}
	for key, v := range map[string]**string{"status": &p.status, "result": &p.result, "log": &p.log} {
		text, present, bad := f.text(key)
		if bad != nil {
			return nil, bad
		}
		if present {
			*v = &text
		}
	}
	if p.status != nil && !knownStatus(*p.status) {
		return nil, incorrect("status", "Must be one of: pending, initializing, active, completed, failed, start failed, "+
			"non-existing Docker image, crashed, killed by user, not allowed, unknown error.")
	}
	for key, v := range map[string]**time.Time{"started_at": &p.started, "finished_at": &p.finished} {
		text, present, bad := f.text(key)
		if bad != nil {
			return nil, bad
		}
		if !present {
			continue
		}
		t, verdict := parseTimestamp(text)
		switch verdict {
		case timestampRefused:
			return nil, incorrect(key, "Not a valid datetime.")
		case timestampCrashes:
			p.crashes = true
		}
		*v = &t
	}
	return p, nil
}

func patchRun(c *call, w http.ResponseWriter) *reply {
	f, refusal := c.body(w)
	s := c.s
	if refusal != nil {
		return refusal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[c.pathID()]
	if r == nil {
		return runNotFound(c)
	}
	answer := s.applyPatch(c, r, f)
	kind := RunPatched
	if answer.code != http.StatusOK {
		kind = RunPatchRefused
	}
	s.record(r, RunEvent{Kind: kind, Code: answer.code, Body: f, By: c.who.id})
	return answer
}

func (s *Server) applyPatch(c *call, r *run, f fields) *reply {
	p, refusal := readRunPatch(f)
	if refusal != nil {
		return refusal
	}
	if r.org != s.organizationOf(c.who) {
		return refuse(http.StatusUnauthorized, "This is not your algorithm run to PATCH!")
	}
	if r.finished != nil {
		return refuse(http.StatusBadRequest, "Cannot update an already finished algorithm run!")
	}
	s.emit(collaborationRoom(r.task.collab), "status_update", object{"run_id": r.id})
	if p.crashes {
		return crash()
	}
	if p.started != nil {
		r.started = p.started
	}
	if p.status != nil {
		r.status = *p.status
	}
	// What is absent is cleared, not kept.
	r.finished, r.result, r.log = p.finished, p.result, p.log
	if Failed(r.status) {
		s.failSiblings(r)
	}
	return ok(s.viewRun(r, false))
}

// ReopenRun makes the server forget a run's outcome, as when it is restored from a
// backup: the run is open, and offered to its node again.
func (s *Server) ReopenRun(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[id]
	r.status, r.started, r.finished, r.result, r.log = StatusPending, nil, nil, nil, nil
	s.record(r, RunEvent{Kind: RunReopened})
}

// failSiblings marks the runs of the same task that nobody has started as failed.
func (s *Server) failSiblings(r *run) {
	now := time.Now()
	for _, sib := range r.task.runs {
		if sib == r || sib.started != nil || sib.finished != nil {
			continue
		}
		sib.status, sib.finished = StatusFailed, &now
		if sib.log == nil {
			reason := fmt.Sprintf("Marked as failed because sibling run id=%d failed with status '%s'.", r.id, r.status)
			sib.log = &reason
		}
		s.record(sib, RunEvent{Kind: RunFailedWithSibling})
	}
}

// plain returns a string key of a recorded body, "" when it is absent.
func (f fields) plain(key string) string {
	var v string
	if json.Unmarshal(f[key], &v) != nil {
		return ""
	}
	return v
}
