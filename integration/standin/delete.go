package standin

import (
	"fmt"
	"maps"
	"net/http"
)

// deleteTask removes a task with its subtasks and all their runs. One that has not
// finished is killed before.
func deleteTask(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, refusal := c.seenTask()
	if refusal != nil {
		return refusal
	}
	if !Finished(t.status()) {
		s.killTask(t, c.who.id)
	}
	s.removeTask(t)
	return ok(object{"msg": fmt.Sprintf("task id=%d and its algorithm run data have been successfully deleted", t.id)})
}

// removeTask takes a task and what it has made out of the world. Callers hold the
// lock.
func (s *Server) removeTask(t *task) {
	for _, child := range newestFirst(s.tasks, func(v *task) bool { return v.parent == t.id }) {
		s.removeTask(child)
	}
	for _, r := range t.runs {
		delete(s.runs, r.id)
	}
	delete(s.tasks, t.id)
	s.changedLocked()
}

// ForgetTask makes the server forget a task and its runs without a word to anybody,
// as when it is restored from a backup that is older. The function that it returns
// brings them back.
func (s *Server) ForgetTask(id int64) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tasks, runs := maps.Clone(s.tasks), maps.Clone(s.runs)
	s.removeTask(s.tasks[id])
	maps.DeleteFunc(tasks, func(id int64, _ *task) bool { return s.tasks[id] != nil })
	maps.DeleteFunc(runs, func(id int64, _ *run) bool { return s.runs[id] != nil })
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		maps.Copy(s.tasks, tasks)
		maps.Copy(s.runs, runs)
		s.changedLocked()
	}
}
