package node

import (
	"sync"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/metrics"
	"github.com/v6node/v6node/node/server"
)

// sessionState is what is known of the session with the server.
type sessionState struct {
	mu        sync.Mutex
	id        *server.Identity
	adopted   bool // what an earlier start left is in work again
	connected bool
	since     time.Time
	synced    time.Time
	count     int // connections
}

func (s *sessionState) login(id *server.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id = id
}

func (s *sessionState) identity() *server.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// takenOver notes that what an earlier start left is in work again.
func (s *sessionState) takenOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopted = true
}

func (s *sessionState) isTakenOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.adopted
}

// now notes whether the event socket is up.
func (s *sessionState) now(connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected != connected || s.since.IsZero() {
		if connected {
			s.count++
		}
		s.connected, s.since = connected, time.Now().UTC()
	}
}

// listed notes a full look at the open runs.
func (s *sessionState) listed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = time.Now().UTC()
}

func (s *sessionState) info(url string) admin.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return admin.SessionInfo{URL: url, Connected: s.connected, Since: s.since, SyncedAt: s.synced}
}

// measure is the session for those who watch.
func (s *sessionState) measure() metrics.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return metrics.Session{LoggedIn: s.id != nil, Connected: s.connected, Connections: s.count, Synced: s.synced}
}
