package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/v6node/v6node/internal/socketio"
	"golang.org/x/sync/errgroup"
)

var (
	// errTokenRefused: the server let the socket in, but not its token.
	errTokenRefused = errors.New("the server does not accept the session's token")
	errSilent       = fmt.Errorf("%w: no greeting on the event socket", errTokenRefused)
)

// listener is one Listen: it hands events on, one at a time, from the socket and the poll timer.
type listener struct {
	v       *V4
	handler func(context.Context, Event)
	mu      sync.Mutex // held while the handler works
	poll    *time.Timer
}

// Listen implements API.
func (v *V4) Listen(ctx context.Context, handler func(context.Context, Event)) error {
	l := &listener{v: v, handler: handler, poll: time.NewTimer(v.poll)}
	defer l.poll.Stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.remind(ctx) })
	g.Go(func() error { return l.connect(ctx) })
	return g.Wait()
}

func (l *listener) deliver(ctx context.Context, e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() == nil {
		l.handler(ctx, e)
	}
}

// remind is the safety net below the events: whatever the socket does, the open runs are listed.
func (l *listener) remind(ctx context.Context) error {
	for {
		select {
		case <-l.poll.C:
			l.poll.Reset(l.v.poll)
			l.deliver(ctx, Event{Kind: Poll})
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// connect holds one connection after the other.
func (l *listener) connect(ctx context.Context) error {
	v := l.v
	wait := backoff{least: v.timing.BackoffMin, most: v.timing.BackoffMax}
	refused := "" // the token that the last connection was not accepted with
	for {
		access, greeted, err := l.session(ctx, refused)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		lived := time.Duration(0)
		if !greeted.IsZero() {
			lived = time.Since(greeted)
			l.deliver(ctx, Event{Kind: Disconnected})
		}
		if lived >= v.timing.Stable {
			wait.reset()
		}
		before := refused
		switch {
		case errors.Is(err, errTokenRefused):
			refused = access
		case access != "": // else there is no new token yet
			refused = ""
		}
		delay := max(wait.next(), askedToWait(err, v.now()))
		if refused != "" && before == "" {
			delay = 0 // the cure is known, and has not been tried yet
		}
		if errors.Is(err, ErrBadAPIKey) {
			// It was good when the node started, so this may pass.
			v.log.Error("the server does not recognize the API key any more: have it restored there, or stop the node and give it a new one", "error", err, "delay", delay.Round(time.Millisecond))
		}
		v.log.Warn("event socket lost, connecting again", "error", err, "after", lived.Round(time.Millisecond), "delay", delay.Round(time.Millisecond))
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// askedToWait is how long the server, or what is before it, wants to be left alone after a session that did not come
// about: by its answer to the handshake, or to what comes before that.
func askedToWait(err error, now time.Time) time.Duration {
	var he *socketio.HandshakeError
	if errors.As(err, &he) {
		return retryAfter(he.Header, now)
	}
	_, asked := Passing(err)
	return asked
}

// session is one connection, from the token to its end. It returns the token that it used and
// when the server's greeting came, if it did.
func (l *listener) session(ctx context.Context, refused string) (access string, greeted time.Time, err error) {
	v := l.v
	self := v.identity.Load()
	if self == nil {
		if self, err = v.Connect(ctx); err != nil {
			return "", greeted, err
		}
	}
	// A token that the socket has refused may look good by its dates, and so may the refresh
	// token of the same session: only the API key leads to a new start.
	t, err := v.tokens.get(ctx, refused, refused != "")
	if err != nil {
		return "", greeted, err
	}
	header := http.Header{"Authorization": {"Bearer " + t.access}, "User-Agent": {v.agent}}
	conn, err := socketio.Dial(ctx, v.socket.String(), header, "/tasks", socketio.Options{HTTPClient: v.http})
	if err != nil {
		var he *socketio.HandshakeError
		if errors.As(err, &he) && (he.Status == http.StatusUnauthorized || he.Status == http.StatusUnprocessableEntity) {
			return t.access, greeted, fmt.Errorf("%w: %w", errTokenRefused, err)
		}
		return t.access, greeted, unreachable(ctx, v.socket.Host, err)
	}
	defer conn.Close()
	if err := l.greeting(ctx, conn); err != nil {
		return t.access, greeted, err
	}
	greeted = time.Now()
	v.out.connected()
	v.log.Info("event socket connected", "server", v.socket.Host)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return v.ping(ctx, conn) })
	g.Go(func() error { return v.send(ctx, conn, self) })
	g.Go(func() error { return l.receive(ctx, conn, self) })
	return t.access, greeted, g.Wait()
}

// greeting waits for sync, the only sign that the server knows who is there. What comes before
// it is for everybody and can be missed: the listing that follows sync covers it.
func (l *listener) greeting(parent context.Context, conn *socketio.Conn) error {
	ctx, cancel := context.WithTimeoutCause(parent, l.v.timing.Sync, errSilent)
	defer cancel()
	for {
		e, err := conn.Read(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		switch e.Name {
		case "sync":
			l.synced(parent)
			return nil
		case "expired_token", "invalid_token":
			return fmt.Errorf("%w: %s", errTokenRefused, e.Name)
		}
	}
}

func (l *listener) synced(ctx context.Context) {
	l.poll.Reset(l.v.poll)
	l.deliver(ctx, Event{Kind: Synced})
}

func (l *listener) receive(ctx context.Context, conn *socketio.Conn, self *Identity) error {
	for {
		e, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		if e.Name == "expired_token" || e.Name == "invalid_token" {
			return fmt.Errorf("%w: %s", errTokenRefused, e.Name)
		}
		if e.Name == "algorithm_log" {
			if run := loggedRun(e); run != 0 {
				l.v.out.echoed(run)
			}
			continue
		}
		event, err := decodeEvent(e, self)
		switch {
		case err != nil:
			// Not a reason to go deaf: the next listing shows what the event was about.
			l.v.log.Warn("an event of the server is not understood", "event", e.Name, "error", err)
		case event == nil:
		case event.Kind == Synced:
			l.synced(ctx)
		default:
			l.deliver(ctx, *event)
		}
	}
}

// ping tells the server, which does not count Engine.IO's pings, that the node is alive.
func (v *V4) ping(ctx context.Context, conn *socketio.Conn) error {
	t := time.NewTimer(v.timing.FirstPing)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := conn.Emit(ctx, "ping"); err != nil {
				return err
			}
			t.Reset(v.timing.PingEvery)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send empties the outbox into the connection.
func (v *V4) send(ctx context.Context, conn *socketio.Conn, self *Identity) error {
	for {
		if n := v.out.lost(); n > 0 {
			v.log.Warn("announcements for the server were dropped, the oldest first, because the event socket was down or slow", "dropped", n)
		}
		i, ok := v.out.take()
		if !ok {
			select {
			case <-v.out.wake:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		name, payload := i.event(self)
		if err := conn.Emit(ctx, name, payload); err != nil {
			v.out.back(i)
			return err
		}
	}
}

// event gives the item the form that the server and other nodes expect.
func (i item) event(self *Identity) (name string, payload any) {
	switch {
	case i.status != nil:
		var parent any
		if i.status.ParentID != 0 {
			parent = i.status.ParentID
		}
		return "algorithm_status_change", map[string]any{
			"node_id":          self.NodeID,
			"status":           i.status.Status,
			"run_id":           i.status.RunID,
			"task_id":          i.status.TaskID,
			"collaboration_id": self.CollaborationID,
			"organization_id":  self.OrganizationID,
			"parent_id":        parent,
		}
	case i.log != nil:
		return "algorithm_log", map[string]any{
			"collaboration_id": self.CollaborationID,
			"run_id":           i.log.RunID,
			"task_id":          i.log.TaskID,
			"log":              i.log.Log,
		}
	default:
		return i.kind.event(), i.body
	}
}

// backoff doubles the delay with each failure and takes a random half to whole of it, so that
// the nodes of a server that was away do not come back all at once.
type backoff struct {
	least, most time.Duration
	failures    int
}

func (b *backoff) next() time.Duration {
	d := b.most
	if b.failures < 30 {
		d = min(b.most, b.least<<b.failures)
	}
	b.failures++
	return d/2 + rand.N(d/2+1)
}

func (b *backoff) reset() { b.failures = 0 }
