package standin

import (
	"errors"
	"net/http"
	"slices"
)

// handler answers one request. It takes the server's lock itself, after it has
// read the body.
type handler func(c *call, w http.ResponseWriter) *reply

// routes maps every path the server knows.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	all := []string{kindNode, kindUser, kindContainer}
	for _, r := range []struct {
		pattern string
		kinds   []string // who may call, nil = everybody without a token
		fn      handler
	}{
		{"GET /version", nil, getVersion},
		{"GET /health", nil, getHealth},
		{"POST /token/node", nil, postNodeToken},
		{"POST /token/user", nil, postUserToken},
		{"POST /token/refresh", nil, postRefresh},
		{"POST /token/container", []string{kindNode}, postContainerToken},

		{"GET /node", []string{kindNode, kindUser}, getNodes},
		{"GET /node/{id}", []string{kindNode, kindUser}, getNode},
		{"GET /user/{id}", []string{kindUser}, getUser},
		{"GET /organization", all, getOrganizations},
		{"GET /organization/{id}", all, getOrganization},
		{"PATCH /organization/{id}", []string{kindNode, kindUser}, patchOrganization},
		{"GET /collaboration", all, getCollaborations},
		{"GET /collaboration/{id}", all, getCollaboration},
		{"GET /study", all, getStudies},
		{"GET /study/{id}", all, getStudy},
		{"GET /algorithmstore/{id}", all, getStore},

		{"GET /task", all, getTasks},
		{"POST /task", []string{kindUser, kindContainer}, postTask},
		{"GET /task/{id}", all, getTask},
		{"DELETE /task/{id}", []string{kindUser}, deleteTask},
		{"GET /task/{id}/status", all, getTaskStatus},
		{"GET /run", all, getRuns},
		{"GET /run/{id}", all, getRun},
		{"PATCH /run/{id}", []string{kindNode}, patchRun},
		{"GET /result", all, getResults},
		{"GET /result/{id}", all, getResult},
		{"POST /kill/task", []string{kindUser}, postKillTask},
		{"POST /kill/node/tasks", []string{kindUser}, postKillNode},

		{"POST /port", []string{kindNode}, postPort},
		{"GET /port", all, getPorts},
		{"DELETE /port", []string{kindNode}, deletePorts},
		{"GET /vpn", []string{kindNode}, getVPN},
		{"GET /vpn/algorithm/addresses", []string{kindNode, kindContainer}, getVPNAddresses},

		{"GET /blobstream/status", all, getBlobStatus},
		{"GET /blobstream/{uuid}", all, getBlob},
		{"POST /blobstream", all, postBlob},
	} {
		mux.HandleFunc(r.pattern, s.guard(r.kinds, r.fn))
	}
	root := http.NewServeMux()
	root.HandleFunc("GET /socket.io/", s.serveSocket)
	if s.api == "" {
		root.Handle("/", mux)
	} else {
		root.Handle(s.api+"/", http.StripPrefix(s.api, mux))
	}
	return root
}

// guard checks the token before the handler runs. A holder of the wrong kind gets
// a 500: that is what the real server does.
func (s *Server) guard(kinds []string, fn handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &call{s: s, r: r}
		if kinds != nil {
			who, refusal := s.authenticate(r, "access")
			if refusal != nil {
				refusal.send(w)
				return
			}
			if !slices.Contains(kinds, who.kind) {
				crash().send(w)
				return
			}
			c.who = who
		}
		fn(c, w).send(w)
	}
}

// authenticate checks the token of a request.
func (s *Server) authenticate(r *http.Request, typ string) (identity, *reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who, err := s.verify(r.Header.Get("Authorization"), typ)
	switch {
	case err == nil:
	case errors.Is(err, errTokenMissing), errors.Is(err, errTokenExpired):
		return identity{}, refuse(http.StatusUnauthorized, err.Error())
	case errors.Is(err, errTokenWrongType) && typ == "refresh":
		return identity{}, refuse(http.StatusUnprocessableEntity, "Only refresh tokens are allowed")
	default:
		return identity{}, refuse(http.StatusUnprocessableEntity, err.Error())
	}
	if s.organizationOf(who) == 0 { // the holder was removed
		return identity{}, crash()
	}
	return who, nil
}

// organizationOf returns the organization that a holder speaks for, 0 when the
// holder does not exist.
func (s *Server) organizationOf(who identity) int64 {
	switch who.kind {
	case kindNode:
		if n := s.nodes[who.id]; n != nil {
			return n.org
		}
	case kindUser:
		if u := s.users[who.id]; u != nil {
			return u.org
		}
	case kindContainer:
		return who.container.OrganizationID
	}
	return 0
}

// maySee tells whether a holder may see what belongs to a collaboration: their
// organization must take part in it.
func (s *Server) maySee(who identity, collab int64) bool {
	c := s.collabs[collab]
	return c != nil && slices.Contains(c.orgs, s.organizationOf(who))
}

func lacksPermission() *reply {
	return refuse(http.StatusUnauthorized, "You lack the permission to do that!")
}

func getVersion(*call, http.ResponseWriter) *reply { return ok(object{"version": "4.14.0"}) }

func getHealth(*call, http.ResponseWriter) *reply { return ok(object{"database": true}) }
