package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	maxConnections = 128
	maxHeaderBytes = 64 << 10
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	drainTimeout   = 5 * time.Second
)

type drainingKey struct{}

// draining returns a channel that is closed when the server is about to stop,
// so that a held request is answered.
func draining(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(drainingKey{}).(<-chan struct{})
	return c
}

// Serve serves a hostile client on l until ctx ends: few connections, short
// headers, no patience with slow ones. Then it takes no more requests, gives
// those under way 5 seconds, cuts off the rest, and returns nil. Other errors
// are those of the listener, which is closed in any case.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	base := context.WithValue(serving, drainingKey{}, ctx.Done())
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// OPTIONS * is no vantage6 request either: the handler refuses it.
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return base },
		// What the standard library would log there is the client's doing.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	drained := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(drained)
		select {
		case <-ctx.Done():
		case <-ended:
		}
		last, cancel := context.WithTimeout(serving, drainTimeout)
		defer cancel()
		if srv.Shutdown(last) != nil {
			stop()
			srv.Close()
		}
	}()
	err := srv.Serve(&fewConnections{Listener: l, places: make(chan struct{}, maxConnections), closed: make(chan struct{})})
	close(ended)
	<-drained
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// fewConnections is a listener that accepts no further connection while there
// are too many.
type fewConnections struct {
	net.Listener
	places chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *fewConnections) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &countedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *fewConnections) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
