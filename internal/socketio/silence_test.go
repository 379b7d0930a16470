package socketio

import (
	"context"
	"errors"
	"net"
	"net/http"
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

// virtual connects a client to a handler of the server side, with the default intervals of
// 25 s and 60 s, in virtual time.
func virtual(t *testing.T, handle func(*ServerConn), test func(*Conn)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := Accept(w, r, AcceptOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			handle(c)
		})}
		served := make(chan struct{})
		go func() { defer close(served); _ = srv.Serve(p) }()
		tr := &http.Transport{DialContext: p.DialContext}
		c, err := Dial(t.Context(), "http://server", nil, "/tasks", Options{HTTPClient: &http.Client{Transport: tr}})
		if err != nil {
			t.Fatal(err)
		}
		test(c)
		c.Close()
		tr.CloseIdleConnections()
		srv.Close()
		<-served
	})
}

func TestAPeerThatFallsSilentIsDeadAfterIntervalAndTimeout(t *testing.T) {
	virtual(t, func(c *ServerConn) {
		c.Freeze()
		<-c.Done()
	}, func(c *Conn) {
		start := time.Now()
		if _, err := c.Read(context.Background()); !errors.Is(err, ErrPeerDead) {
			t.Errorf("got %v, want ErrPeerDead", err)
		}
		if d := time.Since(start); d != 85*time.Second {
			t.Errorf("noticed after %s", d)
		}
	})
}

func TestAClientThatFallsSilentIsDeadForTheServer(t *testing.T) {
	gone := make(chan error, 1)
	virtual(t, func(c *ServerConn) {
		_, err := c.Read(context.Background())
		gone <- err
	}, func(c *Conn) {
		c.frozen.Store(true)
		<-c.Done()
	})
	if err := <-gone; !errors.Is(err, ErrPeerDead) {
		t.Errorf("got %v, want ErrPeerDead", err)
	}
}

func TestPingsKeepAnIdleConnectionAlive(t *testing.T) {
	virtual(t, func(c *ServerConn) {
		select {
		case <-time.After(24 * time.Hour):
			_ = c.Emit(context.Background(), "still here")
		case <-c.Done():
		}
		<-c.Done()
	}, func(c *Conn) {
		if e, err := c.Read(context.Background()); err != nil || e.Name != "still here" {
			t.Errorf("got %+v, %v", e, err)
		}
	})
}
