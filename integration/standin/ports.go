package standin

import (
	"encoding/json"
	"net/http"
	"slices"
)

func postPort(c *call, w http.ResponseWriter) *reply {
	f, bad := c.body(w)
	if bad != nil {
		return bad
	}
	id, bad := f.number("run_id")
	if bad != nil {
		return bad
	}
	var p port
	if err := json.Unmarshal(f["port"], &p.port); err != nil || p.port < 1 || p.port > 65535 {
		return incorrect("port", "Must be greater than or equal to 1 and less than or equal to 65535.")
	}
	if _, there := f["label"]; there {
		if p.label, _, bad = f.text("label"); bad != nil {
			return bad
		}
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[id]
	if r == nil || r.org != s.organizationOf(c.who) {
		return lacksPermission()
	}
	p.id = take(&s.seq.port)
	r.ports = append(r.ports, p)
	return &reply{code: http.StatusCreated, body: object{"id": p.id, "port": p.port, "label": p.label, "run": s.ref("run", r.id)}}
}

func getPorts(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	id := c.query("run_id")
	var list []port
	for _, r := range newestFirst(s.runs, func(r *run) bool {
		return (id == 0 || r.id == id) && s.maySee(c.who, r.task.collab)
	}) {
		list = append(list, r.ports...)
	}
	slices.SortFunc(list, func(a, b port) int { return int(b.id - a.id) })
	return paged(c, list, func(p port) object { return object{"id": p.id, "port": p.port, "label": p.label} })
}

// deletePorts answers 200 also where there was nothing to delete.
func deletePorts(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.r.URL.Query().Has("run_id") {
		return refuse(http.StatusBadRequest, "The 'run_id' argument is required!")
	}
	r := s.runs[c.query("run_id")]
	if r == nil {
		return refuse(http.StatusBadRequest, "The run id specified does not exist!")
	}
	if r.org != s.organizationOf(c.who) {
		return lacksPermission()
	}
	r.ports = nil
	s.record(r, RunEvent{Kind: PortsReleased})
	return ok(object{"msg": "Ports removed from the database."})
}

func getVPN(*call, http.ResponseWriter) *reply {
	return refuse(http.StatusNotImplemented, "This server does not support VPN")
}

func getVPNAddresses(*call, http.ResponseWriter) *reply { return ok(object{"addresses": []object{}}) }
