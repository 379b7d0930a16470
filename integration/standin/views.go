package standin

import (
	"encoding/json"
	"fmt"
)

// The JSON forms of the server's objects. All of these are called under the lock.

// ref is a reference to another object.
func (s *Server) ref(kind string, id int64, methods ...string) any {
	if id == 0 {
		return nil
	}
	if len(methods) == 0 {
		methods = []string{"PATCH", "DELETE", "GET"}
	}
	return object{"id": id, "link": fmt.Sprintf("%s/%s/%d", s.api, kind, id), "methods": methods}
}

// many is the address of a list of objects.
func (s *Server) many(kind, filter string, id int64) string {
	return fmt.Sprintf("%s/%s?%s=%d", s.api, kind, filter, id)
}

func (n *node) status() any {
	switch {
	case n.online:
		return "online"
	case n.lastSeen.IsZero():
		return nil // never seen
	}
	return "offline"
}

func (s *Server) viewNode(n *node) object {
	rows := []object{}
	for _, c := range n.config {
		rows = append(rows, object{"key": c.key, "value": c.value, "node": nil})
	}
	o := object{
		"id": n.id, "name": n.name, "status": n.status(), "ip": nil, "last_seen": nil, "type": "node", "config": rows,
		"collaboration": s.ref("collaboration", n.collab), "organization": s.ref("organization", n.org, "GET", "PATCH"),
	}
	if !n.lastSeen.IsZero() {
		o["last_seen"] = formatTimestamp(n.lastSeen)
	}
	return o
}

func (s *Server) viewOrganization(o *organization) object {
	return object{
		"id": o.id, "name": o.name, "public_key": o.publicKey, "address1": "", "address2": "", "zipcode": "",
		"country": "", "domain": "", "collaborations": s.many("collaboration", "organization_id", o.id),
		"nodes": s.many("node", "organization_id", o.id), "users": s.many("user", "organization_id", o.id),
		"tasks": s.many("task", "init_org_id", o.id), "runs": s.many("run", "organization_id", o.id),
		"studies": s.many("study", "organization_id", o.id),
	}
}

func (s *Server) viewCollaboration(c *collaboration) object {
	return object{
		"id": c.id, "name": c.name, "encrypted": c.encrypted,
		"organizations": s.many("organization", "collaboration_id", c.id), "nodes": s.many("node", "collaboration_id", c.id),
		"tasks": s.many("task", "collaboration_id", c.id), "studies": s.many("study", "collaboration_id", c.id),
		"algorithm_stores": s.many("algorithm_store", "collaboration_id", c.id),
	}
}

func (s *Server) viewStudy(st *study) object {
	return object{
		"id": st.id, "name": st.name, "collaboration": s.ref("collaboration", st.collab),
		"organizations": s.many("organization", "study_id", st.id), "tasks": s.many("task", "study_id", st.id),
	}
}

func (s *Server) viewTask(t *task) object {
	databases := []object{}
	for _, d := range t.databases {
		databases = append(databases, object{"label": d.label, "parameters": d.parameters})
	}
	return object{
		"id": t.id, "name": t.name, "description": t.description, "image": t.image, "status": t.status(),
		"job_id": t.job, "databases": databases, "collaboration": s.ref("collaboration", t.collab),
		"init_org": s.ref("organization", t.initOrg, "GET", "PATCH"), "init_user": s.ref("user", t.initUser),
		"parent": s.ref("task", t.parent, "DELETE", "GET"), "study": s.ref("study", t.study),
		"algorithm_store": s.ref("algorithmstore", t.store), "created_at": formatTimestamp(t.created),
		"finished_at": timestampOrNil(t.finishedAt()), "children": s.many("task", "parent_id", t.id),
		"runs": s.many("run", "task_id", t.id), "results": s.many("result", "task_id", t.id),
	}
}

func (s *Server) viewRun(r *run, includeTask bool) object {
	o := object{
		"id": r.id, "status": r.status, "input": r.input, "started_at": timestampOrNil(r.started),
		"finished_at": timestampOrNil(r.finished), "assigned_at": formatTimestamp(r.assigned), "log": r.log,
		"blob_storage_used": r.blob, "cleanup_at": nil, "results": s.ref("result", r.id, "GET", "PATCH"),
		"organization": s.ref("organization", r.org, "GET", "PATCH"), "node": nil,
	}
	ports := []object{}
	for _, p := range r.ports {
		ports = append(ports, object{"id": p.id, "port": p.port, "label": p.label})
	}
	o["ports"] = ports
	if n := s.nodeOf(r.org, r.task.collab); n != nil {
		o["node"] = object{"id": n.id, "name": n.name, "status": n.status(), "ip": nil, "config": []object{}}
	}
	if includeTask {
		t := s.viewTask(r.task)
		delete(t, "runs")
		o["task"] = t
	} else {
		o["task"] = s.ref("task", r.task.id, "DELETE", "GET")
	}
	return o
}

func (s *Server) viewResult(r *run) object {
	return object{
		"id": r.id, "result": r.result, "blob_storage_used": r.blob, "cleanup_at": nil,
		"run": s.ref("run", r.id, "GET", "PATCH"), "task": s.ref("task", r.task.id, "DELETE", "GET"),
	}
}

// merged is a database as container tokens name it: its parameters and its label.
func (d database) merged() map[string]any {
	m := map[string]any{}
	if err := json.Unmarshal([]byte(d.parameters), &m); err != nil {
		panic("standin: database parameters: " + err.Error()) // written by postTask
	}
	m["label"] = d.label
	return m
}
