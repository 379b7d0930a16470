package standin

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// First numbers of each kind. Nodes and users share one sequence, as on the real
// server, and it does not start at 1.
const (
	firstOrganization  = 1
	firstCollaboration = 21
	firstStudy         = 31
	firstAuth          = 6
	firstTask          = 1
	firstJob           = 41
	firstRun           = 101
	firstStore         = 51
)

type organization struct {
	id        int64
	name      string
	publicKey string // base64 of the PEM text, "" while unknown
}

type collaboration struct {
	id        int64
	name      string
	encrypted bool
	orgs      []int64
}

type study struct {
	id     int64
	name   string
	collab int64
	orgs   []int64
}

type store struct {
	id   int64
	name string
	url  string
}

type configRow struct{ key, value string }

type node struct {
	id       int64
	name     string
	apiKey   string
	revoked  bool
	org      int64
	collab   int64
	online   bool
	lastSeen time.Time
	config   []configRow
}

type user struct {
	id       int64
	name     string
	password string
	org      int64
}

type database struct{ label, parameters string }

type task struct {
	id          int64
	name        string
	description string
	image       string
	collab      int64
	study       int64
	store       int64
	job         int64
	parent      int64
	initOrg     int64
	initUser    int64
	databases   []database
	created     time.Time
	runs        []*run
}

type run struct {
	id       int64
	task     *task
	org      int64
	input    string
	status   string
	assigned time.Time
	started  *time.Time
	finished *time.Time
	result   *string
	log      *string
	ports    []port
	blob     bool
	history  []RunEvent
}

type port struct {
	id    int64
	port  int
	label string
}

// sequences hands out the numbers of each kind.
type sequences struct {
	organization, collaboration, study, auth, task, job, run, store, port int64
}

func newSequences() sequences {
	return sequences{
		organization: firstOrganization, collaboration: firstCollaboration, study: firstStudy,
		auth: firstAuth, task: firstTask, job: firstJob, run: firstRun, store: firstStore, port: 1,
	}
}

func take(n *int64) int64 {
	id := *n
	*n++
	return id
}

// AddOrganization registers an organization without a public key and returns its
// number.
func (s *Server) AddOrganization(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &organization{id: take(&s.seq.organization), name: name}
	s.orgs[o.id] = o
	return o.id
}

// AddCollaboration registers a collaboration of existing organizations and
// returns its number. It panics when an organization does not exist: that is a
// mistake in the test, not a condition to handle.
func (s *Server) AddCollaboration(name string, encrypted bool, orgs ...int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range orgs {
		if s.orgs[id] == nil {
			panic(fmt.Sprintf("standin: organization %d does not exist", id))
		}
	}
	c := &collaboration{id: take(&s.seq.collaboration), name: name, encrypted: encrypted, orgs: append([]int64(nil), orgs...)}
	s.collabs[c.id] = c
	return c.id
}

// JoinCollaboration adds an existing organization to a collaboration. It needs no
// node there to send tasks to the others.
func (s *Server) JoinCollaboration(org, collab int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.collabs[collab]
	if c == nil || s.orgs[org] == nil {
		panic(fmt.Sprintf("standin: organization %d cannot join collaboration %d", org, collab))
	}
	c.orgs = append(c.orgs, org)
}

// AddStudy registers a study: a subset of a collaboration's organizations.
func (s *Server) AddStudy(name string, collab int64, orgs ...int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &study{id: take(&s.seq.study), name: name, collab: collab, orgs: append([]int64(nil), orgs...)}
	s.studies[st.id] = st
	return st.id
}

// AddStore registers an algorithm store with its address.
func (s *Server) AddStore(name, url string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &store{id: take(&s.seq.store), name: name, url: url}
	s.stores[st.id] = st
	return st.id
}

// AddNode registers the node of an organization in a collaboration and returns
// its API key, the only credential of a node. It panics when the organization is
// not in the collaboration.
func (s *Server) AddNode(org, collab int64) (apiKey string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.collabs[collab]
	if c == nil || !slices.Contains(c.orgs, org) {
		panic(fmt.Sprintf("standin: organization %d is not in collaboration %d", org, collab))
	}
	n := &node{
		id: take(&s.seq.auth), apiKey: newUUID(), org: org, collab: collab,
		name: fmt.Sprintf("%s - %s Node", c.name, s.orgs[org].name),
	}
	s.nodes[n.id] = n
	return n.apiKey
}

// AddUser registers a user of an organization and returns the user's number.
// Users may see and start everything in the collaborations of their
// organization.
func (s *Server) AddUser(org int64, name, password string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &user{id: take(&s.seq.auth), name: name, password: password, org: org}
	s.users[u.id] = u
	return u.id
}

// NodeID returns the number of the node with this API key, 0 when there is none.
func (s *Server) NodeID(apiKey string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.apiKey == apiKey {
			return n.id
		}
	}
	return 0
}

// SetPublicKey stores an organization's public key (base64 of the PEM text) as
// its node would.
func (s *Server) SetPublicKey(org int64, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orgs[org].publicKey = key
	s.changedLocked()
}

// nodeOf returns the node of an organization in a collaboration, or nil.
func (s *Server) nodeOf(org, collab int64) *node {
	for _, n := range s.nodes {
		if n.org == org && n.collab == collab {
			return n
		}
	}
	return nil
}

// newUUID returns a random RFC 9562 version 4 UUID.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
