// Package faultproxy is a TCP proxy that breaks what it forwards: between a node
// and its server it is the network, the firewall and the certificate of which
// neither knows. What a server does wrong by itself, statuses and lost replies
// for one, integration/standin does.
package faultproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Fault is what goes wrong; the zero value is nothing. Refuse and Certificate
// concern new connections, everything else also those that stand.
type Fault struct {
	// Refuse refuses connections, as a machine does where nobody listens.
	Refuse bool
	// End is what becomes of a connection once so many bytes have passed since the
	// fault was set: Up towards the server, Down towards the client, whichever
	// comes first; Never is no limit. With a limit of 0 nothing passes, and a new
	// connection does not reach the server.
	End      End
	Up, Down int64
	// Times is how many connections End befalls; 0 is all.
	Times int
	// Rate is how many bytes a second pass in each direction of a connection; 0 is
	// as many as can.
	Rate int64
	// Certificate is the one that a client sees, where the proxy speaks TLS.
	Certificate Certificate
}

// End is how a connection ends.
type End int

// The ends.
const (
	// Pass: it does not.
	Pass End = iota
	// Close: both sides read the end.
	Close
	// Reset: both sides get an RST.
	Reset
	// Stall: it stands, nothing passes any more, and neither side hears of it. It
	// stays so when the fault is over.
	Stall
)

// Never is a limit that is not reached.
const Never = -1

// Stats counts what has happened.
type Stats struct {
	Accepted  int // connections
	Refused   int // clients that did not accept the certificate, or spoke no TLS
	Ended     int // connections that End has befallen
	Connected int // connections that stand, stalled ones too
}

// Proxy is one listening proxy. Its methods may be called from any goroutine.
type Proxy struct {
	target string
	keys   *Keys
	addr   string
	ctx    context.Context // ends at Shut
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	ln      net.Listener // nil while connections are refused
	fault   Fault
	serial  int // of the fault
	left    int // of its Times
	conns   map[*conn]struct{}
	stats   Stats
	changed chan struct{} // closed and replaced at each change
}

// New starts a proxy on loopback for what listens at target. With keys it speaks
// TLS with its clients, and plain TCP with the target. The caller shuts it.
func New(target string, keys *Keys) (*Proxy, error) {
	p := &Proxy{target: target, keys: keys, addr: "127.0.0.1:0", conns: make(map[*conn]struct{}), changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.Set(Fault{}); err != nil {
		p.cancel()
		return nil, err
	}
	return p, nil
}

// Port is where the proxy listens, also while it refuses.
func (p *Proxy) Port() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, err := net.ResolveTCPAddr("tcp", p.addr)
	if err != nil {
		return 0 // it is our own
	}
	return a.Port
}

// Set replaces the fault.
func (p *Proxy) Set(f Fault) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return errors.New("the proxy is shut")
	}
	switch {
	case f.Refuse && p.ln != nil:
		if err := p.ln.Close(); err != nil {
			return fmt.Errorf("refuse connections: %w", err)
		}
		p.ln = nil
	case !f.Refuse && p.ln == nil:
		ln, err := net.Listen("tcp", p.addr)
		if err != nil {
			return fmt.Errorf("accept connections: %w", err)
		}
		p.ln, p.addr = ln, ln.Addr().String()
		p.work.Go(func() { p.accept(ln) })
	}
	p.fault, p.left = f, f.Times
	p.serial++
	for c := range p.conns {
		c.look(f)
	}
	return nil
}

// Cut resets all connections that stand.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.end(Reset)
	}
}

// Break is Set and Cut: nothing of the time before goes on.
func (p *Proxy) Break(f Fault) error {
	err := p.Set(f)
	p.Cut()
	return err
}

// Wait returns when the counts are as wanted.
func (p *Proxy) Wait(ctx context.Context, wanted func(Stats) bool) error {
	for {
		p.mu.Lock()
		s, changed := p.stats, p.changed
		s.Connected = len(p.conns)
		p.mu.Unlock()
		if wanted(s) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the proxy's counts are %+v: %w", s, ctx.Err())
		}
	}
}

// Shut ends listener and connections, and returns when nothing of the proxy runs
// any more.
func (p *Proxy) Shut() {
	p.mu.Lock()
	p.cancel()
	if p.ln != nil {
		_ = p.ln.Close() // it can only be closed already
		p.ln = nil
	}
	for c := range p.conns {
		c.end(Reset)
	}
	p.mu.Unlock()
	p.work.Wait()
}

func (p *Proxy) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return // closed: refused or shut
		}
		c := &conn{p: p, client: client.(*net.TCPConn), done: make(chan struct{}), stalled: make(chan struct{})}
		p.mu.Lock()
		p.stats.Accepted++
		if p.ctx.Err() != nil || p.ln != ln {
			c.end(Reset)
		}
		p.conns[c] = struct{}{}
		p.tell()
		p.mu.Unlock()
		p.work.Go(func() {
			c.serve()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.conns, c)
			p.tell()
		})
	}
}

// tell wakes those who wait. Callers hold the lock.
func (p *Proxy) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) count(n *int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*n++
	p.tell()
}

// serverTLS is the proxy's side of a handshake; the certificate is the one of the
// moment.
func (p *Proxy) serverTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.keys.certificate(p.fault.Certificate), nil
	}}
}
