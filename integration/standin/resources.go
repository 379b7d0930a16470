package standin

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// newestFirst returns the kept values of a map, highest key first.
func newestFirst[T any](m map[int64]T, keep func(T) bool) []T {
	var list []T
	for _, id := range slices.SortedFunc(maps.Keys(m), func(a, b int64) int { return cmp.Compare(b, a) }) {
		if keep(m[id]) {
			list = append(list, m[id])
		}
	}
	return list
}

func getNodes(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	collab, org := c.query("collaboration_id"), c.query("organization_id")
	return paged(c, newestFirst(s.nodes, func(n *node) bool {
		return s.maySee(c.who, n.collab) && (collab == 0 || n.collab == collab) && (org == 0 || n.org == org)
	}), s.viewNode)
}

func getNode(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[c.pathID()]
	if n == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("Node id=%s not found!", c.r.PathValue("id")))
	}
	if !s.maySee(c.who, n.collab) {
		return lacksPermission()
	}
	return ok(s.viewNode(n))
}

func getUser(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[c.pathID()]
	if u == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("user id=%s not found", c.r.PathValue("id")))
	}
	if u.org != s.organizationOf(c.who) {
		return lacksPermission()
	}
	return ok(object{"id": u.id, "username": u.name, "organization": s.ref("organization", u.org, "GET", "PATCH")})
}

// shareCollaboration tells whether a holder's organization and another one meet in
// some collaboration.
func (s *Server) shareCollaboration(who identity, org int64) bool {
	mine := s.organizationOf(who)
	if mine == org {
		return true
	}
	for _, c := range s.collabs {
		if slices.Contains(c.orgs, mine) && slices.Contains(c.orgs, org) {
			return true
		}
	}
	return false
}

func getOrganizations(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	collab, studyID, name := c.query("collaboration_id"), c.query("study_id"), c.r.URL.Query().Get("name")
	if collab != 0 && !s.maySee(c.who, collab) {
		return lacksPermission()
	}
	st := s.studies[studyID]
	if studyID != 0 && (st == nil || !s.maySee(c.who, st.collab)) {
		return lacksPermission()
	}
	return paged(c, newestFirst(s.orgs, func(o *organization) bool {
		return s.shareCollaboration(c.who, o.id) && (name == "" || o.name == name) &&
			(collab == 0 || slices.Contains(s.collabs[collab].orgs, o.id)) &&
			(st == nil || slices.Contains(st.orgs, o.id))
	}), s.viewOrganization)
}

func getOrganization(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orgs[c.pathID()]
	if o == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("Organization id=%s not found!", c.r.PathValue("id")))
	}
	if !s.shareCollaboration(c.who, o.id) {
		return lacksPermission()
	}
	return ok(s.viewOrganization(o))
}

func patchOrganization(c *call, w http.ResponseWriter) *reply {
	f, bad := c.body(w)
	if bad != nil {
		return bad
	}
	if bad := f.allow("name", "address1", "address2", "zipcode", "country", "domain", "public_key"); bad != nil {
		return bad
	}
	key, present, bad := f.text("public_key")
	if bad != nil {
		return bad
	}
	if _, err := base64.StdEncoding.DecodeString(key); err != nil {
		return incorrect("public_key", "Public key is not in base64 format.")
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orgs[c.pathID()]
	if o == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("Organization with id=%s not found!", c.r.PathValue("id")))
	}
	if s.organizationOf(c.who) != o.id {
		return lacksPermission()
	}
	if present {
		o.publicKey = key
		s.changedLocked()
	}
	return ok(s.viewOrganization(o))
}

func getCollaborations(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return paged(c, newestFirst(s.collabs, func(v *collaboration) bool { return s.maySee(c.who, v.id) }), s.viewCollaboration)
}

func getCollaboration(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.collabs[c.pathID()]
	if v == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("collaboration id=%s can not be found", c.r.PathValue("id")))
	}
	if !s.maySee(c.who, v.id) {
		return lacksPermission()
	}
	return ok(s.viewCollaboration(v))
}

func getStudies(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	collab := c.query("collaboration_id")
	return paged(c, newestFirst(s.studies, func(st *study) bool {
		return s.maySee(c.who, st.collab) && (collab == 0 || st.collab == collab)
	}), s.viewStudy)
}

func getStudy(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.studies[c.pathID()]
	if st == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("Study id=%s can not be found", c.r.PathValue("id")))
	}
	if !s.maySee(c.who, st.collab) {
		return lacksPermission()
	}
	return ok(s.viewStudy(st))
}

func getStore(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stores[c.pathID()]
	if st == nil {
		return refuse(http.StatusNotFound, fmt.Sprintf("Algorithm store id=%s can not be found", c.r.PathValue("id")))
	}
	return ok(object{"id": st.id, "name": st.name, "url": st.url, "api_path": "/api", "collaborations": nil})
}
