package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/v6node/v6node/node/health"
)

// loops are the signs of life of the node's own loops. Each allowance is longer
// than the longest step that can succeed, so that an outage of server or runtime
// is never taken for a loop that is stuck.
type loops struct{ session, reconcile, clean *health.Loop }

const (
	// sessionSlack is what an event's handler may take.
	sessionSlack = 2 * time.Minute
	// reconcileAllowance is for one listing, whose pages may be many.
	reconcileAllowance = 10 * time.Minute
	// cleanAllowance is for removing one thing, such as a large image.
	cleanAllowance = time.Hour
)

// Condition names that the node's owner sees. ConditionPaused is the one that an
// administrator wants.
const ConditionPaused = "intake"

func newLoops(m *health.Monitor, poll time.Duration) loops {
	return loops{
		// The session reminds the node to poll, whatever the server does.
		session:   m.Loop("session", poll+sessionSlack),
		reconcile: m.Loop("reconcile", reconcileAllowance),
		clean:     m.Loop("clean", cleanAllowance),
	}
}

// rest ends the watching: a node that stops takes the time that it needs.
func (l loops) rest() {
	for _, one := range []*health.Loop{l.session, l.reconcile, l.clean} {
		one.Rest()
	}
}

// requireConditions tells the monitor what the node needs to take runs. Whoever
// has the runtime adds that it answers.
func (n *Node) requireConditions() {
	n.health.Require("server", func(context.Context) error { return n.session.lacking(n.cfg.PollInterval) })
	n.health.Require("disk", health.Cached(n.checkDisks, askDisksEvery))
	n.health.Require(ConditionPaused, func(context.Context) error {
		if n.gate.Paused() {
			return errors.New("paused by the administrator: v6node resume")
		}
		return nil
	})
}

// lacking says what keeps the node from hearing of runs, or nil. A listing that
// succeeded lately does as well as the event socket.
func (s *sessionState) lacking(poll time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.id == nil:
		return errors.New("not logged in yet")
	case !s.adopted:
		return errors.New("still taking over what an earlier start left")
	case s.connected:
		return nil
	case s.synced.IsZero():
		return errors.New("the event socket is not up and the open runs were never listed")
	}
	if age := time.Since(s.synced); age > 3*poll+time.Second {
		return fmt.Errorf("the event socket is down since %s and the open runs were last listed %v ago", s.since.Format(time.RFC3339), age.Round(time.Second))
	}
	return nil
}
