package standin

import (
	"fmt"
	"net/http"
	"time"
)

func killTarget(c *call, w http.ResponseWriter) (int64, *reply) {
	f, bad := c.body(w)
	if bad != nil {
		return 0, bad
	}
	if bad := f.allow("id"); bad != nil {
		return 0, bad
	}
	id, bad := f.number("id")
	if bad != nil {
		return 0, bad
	}
	if id == 0 {
		return 0, incorrect("id", "Missing data for required field.")
	}
	return id, nil
}

// postKillTask finishes the unfinished runs of a task and its children itself and
// tells the whole collaboration.
func postKillTask(c *call, w http.ResponseWriter) *reply {
	id, bad := killTarget(c, w)
	if bad != nil {
		return bad
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	switch {
	case t == nil:
		return refuse(http.StatusNotFound, fmt.Sprintf("Task id=%d not found", id))
	case Finished(t.status()):
		return refuse(http.StatusBadRequest, fmt.Sprintf("Task %d already finished with status '%s', so cannot kill it!", id, t.status()))
	case !s.maySee(c.who, t.collab):
		return lacksPermission()
	}
	s.killTask(t, c.who.id)
	return ok(object{"msg": fmt.Sprintf("Nodes have been instructed to kill any containers running for task %d.", id)})
}

// killTask does it. Callers hold the lock.
func (s *Server) killTask(t *task, by int64) {
	list, now := []object{}, time.Now()
	for _, victim := range newestFirst(s.tasks, func(v *task) bool { return v == t || v.parent == t.id }) {
		for _, r := range victim.runs {
			if Finished(r.status) {
				continue
			}
			list = append(list, object{"task_id": victim.id, "run_id": r.id, "organization_id": r.org})
			r.status, r.finished = StatusKilled, &now
			s.record(r, RunEvent{Kind: RunKilled, By: by})
		}
	}
	s.emit(collaborationRoom(t.collab), "kill_containers", object{"kill_list": list, "collaboration_id": t.collab})
}

// postKillNode only tells the collaboration; the runs stay open until the node
// reports them.
func postKillNode(c *call, w http.ResponseWriter) *reply {
	id, bad := killTarget(c, w)
	if bad != nil {
		return bad
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	switch {
	case n == nil:
		return refuse(http.StatusNotFound, fmt.Sprintf("Node id=%d not found", id))
	case !n.online:
		return refuse(http.StatusBadRequest, fmt.Sprintf("Node %d is not online so cannot kill its tasks!", id))
	case !s.maySee(c.who, n.collab):
		return lacksPermission()
	}
	s.emit(collaborationRoom(n.collab), "kill_containers", object{"node_id": n.id, "collaboration_id": n.collab})
	return ok(object{"msg": fmt.Sprintf("Node %d has been instructed to kill all containers running on it.", id)})
}

// EmitKillList sends kill_containers with a list as given to a collaboration, for
// the corner cases that the kill endpoints never produce: an empty list, a list of
// other organizations' runs, unknown runs.
func (s *Server) EmitKillList(collab int64, list []KillEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list == nil {
		list = []KillEntry{}
	}
	s.emit(collaborationRoom(collab), "kill_containers", object{"kill_list": list, "collaboration_id": collab})
}

// KillEntry is one entry of a kill list.
type KillEntry struct {
	TaskID         int64 `json:"task_id"`
	RunID          int64 `json:"run_id"`
	OrganizationID int64 `json:"organization_id"`
}
