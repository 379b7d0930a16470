package standin

import (
	"crypto/subtle"
	"fmt"
	"net/http"
)

func postNodeToken(c *call, w http.ResponseWriter) *reply {
	f, bad := c.body(w)
	if bad != nil {
		return bad
	}
	key, present, bad := f.text("api_key")
	if bad != nil {
		return bad
	}
	if !present {
		return incorrect("api_key", "Missing data for required field.")
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if !n.revoked && subtle.ConstantTimeCompare([]byte(n.apiKey), []byte(key)) == 1 {
			return ok(s.tokens(identity{kind: kindNode, id: n.id}))
		}
	}
	return refuse(http.StatusUnauthorized, "Api key is not recognized!")
}

func postUserToken(c *call, w http.ResponseWriter) *reply {
	f, bad := c.body(w)
	if bad != nil {
		return bad
	}
	name, _, bad := f.text("username")
	if bad != nil {
		return bad
	}
	password, _, bad := f.text("password")
	if bad != nil {
		return bad
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.users {
		if u.name == name && subtle.ConstantTimeCompare([]byte(u.password), []byte(password)) == 1 {
			return ok(s.tokens(identity{kind: kindUser, id: u.id}))
		}
	}
	return refuse(http.StatusUnauthorized, "Invalid username or password!")
}

func postRefresh(c *call, _ http.ResponseWriter) *reply {
	who, refusal := c.s.authenticate(c.r, "refresh")
	if refusal != nil {
		return refusal
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return ok(c.s.tokens(who))
}

// tokens makes the answer to a login or refresh. Callers hold the lock.
func (s *Server) tokens(who identity) object {
	o := object{
		"access_token":  s.sign(who.kind, "access", who.id, s.opt.AccessLife),
		"refresh_token": s.sign(who.kind, "refresh", who.id, s.opt.RefreshLife),
		"refresh_url":   s.api + "/token/refresh",
	}
	o[who.kind+"_url"] = fmt.Sprintf("%s/%s/%d", s.api, who.kind, who.id)
	return o
}

func postContainerToken(c *call, w http.ResponseWriter) *reply {
	f, bad := c.body(w)
	if bad != nil {
		return bad
	}
	if bad := f.allow("task_id", "image"); bad != nil {
		return bad
	}
	id, bad := f.number("task_id")
	if bad != nil {
		return bad
	}
	image, present, bad := f.text("image")
	if bad != nil {
		return bad
	}
	if id == 0 || !present {
		return incorrect("image", "Missing data for required field.")
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	n, t := s.nodes[c.who.id], s.tasks[id]
	switch {
	case t == nil:
		return refuse(http.StatusBadRequest, "Parent task does not exist!")
	case image != t.image:
		return refuse(http.StatusUnauthorized, "Image and task do no match")
	case n.collab != t.collab:
		return refuse(http.StatusUnauthorized, "You are not within the collaboration")
	case Finished(t.status()):
		return refuse(http.StatusBadRequest, "Task is already finished!")
	}
	sub := &containerSubject{
		ClientType: kindContainer, NodeID: n.id, OrganizationID: n.org, CollabID: n.collab,
		TaskID: t.id, Image: image, Databases: []map[string]any{},
	}
	if t.study != 0 {
		sub.StudyID = &t.study
	}
	if t.store != 0 {
		sub.StoreID = &t.store
	}
	for _, d := range t.databases {
		sub.Databases = append(sub.Databases, d.merged())
	}
	return ok(object{"container_token": s.sign(kindContainer, "access", sub, 0)})
}
