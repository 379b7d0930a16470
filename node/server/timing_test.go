package server

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network in memory, on which virtual time works: it is listener and dialer in one.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// virtual runs a node with the intervals of a real one, against a fake, in virtual time. What the
// test gets is the running Listen; its events carry the time since the start.
func virtual(t *testing.T, prepare func(*fake), test func(f *fake, v *V4, events func() (Event, time.Duration))) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		f := newFake(t)
		f.srv = &httptest.Server{URL: "http://server", Listener: p, Config: &http.Server{Handler: f}}
		if prepare != nil {
			prepare(f)
		}
		served := make(chan struct{})
		go func() { defer close(served); _ = f.srv.Config.Serve(p) }()
		v, err := NewV4(Config{URL: "http://server", APIPath: "/api", APIKey: goodKey})
		if err != nil {
			t.Fatal(err)
		}
		tr := v.http.Transport.(*http.Transport)
		tr.Proxy, tr.DialContext = nil, p.DialContext
		ctx, cancel := context.WithCancel(t.Context())
		type stamped struct {
			Event
			at time.Duration
		}
		events := make(chan stamped, 10_000)
		start := time.Now()
		done := make(chan error)
		go func() {
			done <- v.Listen(ctx, func(_ context.Context, e Event) { events <- stamped{e, time.Since(start)} })
		}()
		test(f, v, func() (Event, time.Duration) {
			e := <-events
			return e.Event, e.at
		})
		cancel()
		<-done
		v.Close()
		_ = f.srv.Config.Close()
		<-served
		f.srv.URL = "" // closed already
	})
}

func TestARealNodesPingsKeepItOnline(t *testing.T) {
	virtual(t, nil, func(f *fake, v *V4, next func() (Event, time.Duration)) {
		next()
		s := <-f.sockets
		start := time.Now()
		for i, want := range []time.Duration{5 * time.Second, 65 * time.Second, 125 * time.Second, 185 * time.Second} {
			e, err := s.Read(context.Background())
			if err != nil || e.Name != "ping" || len(e.Args) != 0 {
				t.Errorf("got %+v, %v", e, err)
				return
			}
			if at := time.Since(start); at != want {
				t.Errorf("ping %d after %s, want %s", i, at, want)
			}
		}
	})
}

func TestARealNodeListsTheOpenRunsEveryHalfMinute(t *testing.T) {
	virtual(t, nil, func(_ *fake, _ *V4, next func() (Event, time.Duration)) {
		if e, at := next(); e.Kind != Synced || at != 0 {
			t.Errorf("got %s after %s", e.Kind, at)
		}
		for i := 1; i <= 10; i++ {
			if e, at := next(); e.Kind != Poll || at != time.Duration(i)*30*time.Second {
				t.Errorf("got %s after %s", e.Kind, at)
			}
		}
	})
}

func TestARealNodeNoticesAHalfOpenSocketAndPollsMeanwhile(t *testing.T) {
	virtual(t, nil, func(f *fake, _ *V4, next func() (Event, time.Duration)) {
		next()
		(<-f.sockets).Freeze()
		polls := 0
		for {
			e, at := next()
			if e.Kind == Poll {
				polls++
				continue
			}
			if e.Kind != Disconnected || at < 85*time.Second || at > 90*time.Second {
				t.Errorf("got %s after %s", e.Kind, at)
			}
			break
		}
		if polls != 2 {
			t.Errorf("%d polls", polls)
		}
		for {
			if e, at := next(); e.Kind == Synced {
				if at > 95*time.Second {
					t.Errorf("back after %s", at)
				}
				return
			}
		}
	})
}

func TestARealNodeTakesASocketWithoutGreetingForRefusedAfter15Seconds(t *testing.T) {
	virtual(t, func(f *fake) {
		f.onJoin = func(s *socket) {
			if s.n > 1 {
				f.emit(s, "sync")
			}
		}
	}, func(f *fake, _ *V4, next func() (Event, time.Duration)) {
		e, at := next()
		if e.Kind != Synced || at < 15*time.Second || at > 20*time.Second {
			t.Errorf("got %s after %s", e.Kind, at)
		}
		if l, _ := f.count(); l != 2 {
			t.Errorf("%d logins", l)
		}
	})
}

func TestARealNodesSessionOutlivesItsTokens(t *testing.T) {
	virtual(t, nil, func(f *fake, v *V4, next func() (Event, time.Duration)) {
		s := <-f.sockets
		go func() {
			for {
				if _, err := s.Read(context.Background()); err != nil {
					return
				}
			}
		}()
		for {
			e, at := next()
			if e.Kind == Disconnected {
				t.Errorf("disconnected after %s", at)
				return
			}
			if at > 26*time.Hour {
				break
			}
			if _, err := v.OrganizationKey(context.Background(), orgID); err != nil {
				t.Error(err)
				return
			}
		}
		// Every token is replaced 10 minutes before its 6 hours are over, at the next listing.
		if l, r := f.count(); l != 1 || r != 4 {
			t.Errorf("%d logins, %d refreshs", l, r)
		}
	})
}
