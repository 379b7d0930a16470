package forward

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What a run may have and do (docs/connections.md).
const (
	maxConnections = 128
	perSecond      = 50
	burst          = 500
)

// Gate bounds the connections of one run. It is safe for concurrent use.
type Gate struct {
	places chan struct{}

	mu     sync.Mutex
	tokens float64
	filled time.Time
	rate   float64
	most   float64
}

// NewGate makes the gate of a run.
func NewGate() *Gate { return newGate(maxConnections, perSecond, burst) }

func newGate(places int, rate, most float64) *Gate {
	return &Gate{places: make(chan struct{}, places), tokens: most, filled: time.Now(), rate: rate, most: most}
}

// enter takes a place, and waits while there is none or new connections come too
// fast. leave gives it back.
func (g *Gate) enter(ctx context.Context) error {
	select {
	case g.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := g.Pace(ctx); err != nil {
		g.leave()
		return err
	}
	return nil
}

// Pace waits where new connections, or what is like one, come too fast.
func (g *Gate) Pace(ctx context.Context) error {
	wait := g.token()
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *Gate) leave() { <-g.places }

// token takes one, and tells how long to wait until it is there.
func (g *Gate) token() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.tokens = min(g.most, g.tokens+g.rate*now.Sub(g.filled).Seconds()) - 1
	g.filled = now
	return time.Duration(-g.tokens / g.rate * float64(time.Second))
}

// Accept takes a connection from l and a place for it. What only shows that the
// machine is short of something is waited for. An error is that of the listener,
// or of ctx.
func (g *Gate) Accept(ctx context.Context, l net.Listener) (net.Conn, func(), error) {
	for {
		c, err := l.Accept()
		if err == nil {
			if err := g.enter(ctx); err != nil {
				Reset(c)
				return nil, nil, err
			}
			return c, sync.OnceFunc(g.leave), nil
		}
		if !passing(err) || ctx.Err() != nil {
			return nil, nil, err
		}
		select {
		case <-time.After(shortage):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// shortage is the pause after an Accept for which the machine lacked something.
const shortage = 100 * time.Millisecond

func passing(err error) bool {
	for _, e := range []error{unix.ECONNABORTED, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Listener makes a listener whose connections have a place in the gate until
// they are closed. It ends with ctx.
func (g *Gate) Listener(ctx context.Context, l net.Listener) net.Listener {
	return &gated{Listener: l, ctx: ctx, gate: g}
}

type gated struct {
	net.Listener
	ctx  context.Context
	gate *Gate
}

func (l *gated) Accept() (net.Conn, error) {
	c, leave, err := l.gate.Accept(l.ctx, l.Listener)
	if err != nil {
		return nil, err
	}
	return &placed{Conn: c, leave: leave}, nil
}

type placed struct {
	net.Conn
	leave func()
}

func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

func (c *placed) CloseWrite() error { return closeWrite(c.Conn) }
