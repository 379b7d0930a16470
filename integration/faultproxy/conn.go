package faultproxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// chunk is how much is read at a time.
const chunk = 32 << 10

// steps is how many pieces a second's bytes are sent in where they are rationed.
const steps = 10

// direction of bytes.
type direction int

const (
	up   direction = iota // to the server
	down                  // to the client
)

// conn is one client's connection.
type conn struct {
	p       *Proxy
	client  *net.TCPConn
	done    chan struct{} // closed at its end
	stalled chan struct{} // closed when nothing passes any more

	// The following is guarded by the proxy's lock.
	server *net.TCPConn // nil before it is connected
	ended  bool
	stall  bool
	serial int      // of the fault for which passed is counted
	passed [2]int64 // bytes in each direction
}

// serve forwards until the connection has ended.
func (c *conn) serve() {
	defer c.close(Close)
	if !c.begin() {
		<-c.done
		return
	}
	var client duplex = c.client
	if c.p.keys != nil {
		t := tls.Server(c.client, c.p.serverTLS())
		if err := t.HandshakeContext(c.p.ctx); err != nil {
			c.p.count(&c.p.stats.Refused)
			return
		}
		client = t
	}
	server, err := (&net.Dialer{}).DialContext(c.p.ctx, "tcp", c.p.target)
	if err != nil {
		return // as when the target itself were asked
	}
	if !c.connected(server.(*net.TCPConn)) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.forward(up, server.(*net.TCPConn), client) })
	both.Go(func() { c.forward(down, client, server.(*net.TCPConn)) })
	both.Wait()
}

// duplex is a connection whose writing side can be ended alone.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
}

// begin tells whether a new connection is to reach the server.
func (c *conn) begin() bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.look(c.p.fault)
	return !c.ended && !c.stall
}

// look applies a fault that lets nothing pass. Callers hold the lock.
func (c *conn) look(f Fault) {
	if f.End != Pass && (f.Up == 0 || f.Down == 0) && c.chosen() {
		c.end(f.End)
	}
}

func (c *conn) connected(server *net.TCPConn) bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.ended {
		_ = server.Close()
		return false
	}
	c.server = server
	return true
}

// forward copies one direction to its end. A connection that ends in one
// direction goes on in the other, as TCP's do.
func (c *conn) forward(d direction, to, from duplex) {
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf[:c.allowance()])
		if n > 0 {
			if !c.open() {
				return
			}
			n, end := c.pass(d, n)
			if _, err := to.Write(buf[:n]); err != nil {
				c.close(Reset)
				return
			}
			if end != Pass {
				c.close(end)
			}
			if !c.open() || !c.ration(n) {
				return
			}
		}
		if !c.open() {
			return
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite() // the other side may be gone
			return
		case err != nil:
			c.close(Reset)
			return
		}
	}
}

// open waits out a stall; false means that the connection is over.
func (c *conn) open() bool {
	select {
	case <-c.stalled:
		<-c.done
		return false
	case <-c.done:
		return false
	default:
		return true
	}
}

// allowance is how much may be read at once.
func (c *conn) allowance() int64 {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if r := c.p.fault.Rate; r > 0 {
		return min(chunk, max(1, r/steps))
	}
	return chunk
}

// ration waits as long as n bytes take; false means that the connection is over.
func (c *conn) ration(n int) bool {
	c.p.mu.Lock()
	rate := c.p.fault.Rate
	c.p.mu.Unlock()
	if rate <= 0 {
		return true
	}
	t := time.NewTimer(time.Duration(n) * time.Second / time.Duration(rate))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}

// pass counts n bytes and returns how many of them may go on, and how the
// connection is to end when they have.
func (c *conn) pass(d direction, n int) (int, End) {
	p := c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.serial != p.serial {
		c.serial, c.passed = p.serial, [2]int64{}
	}
	f, limit := p.fault, [2]int64{p.fault.Up, p.fault.Down}[d]
	end := Pass
	if f.End != Pass && limit != Never && c.passed[d]+int64(n) >= limit && c.chosen() {
		n, end = int(limit-c.passed[d]), f.End
	}
	c.passed[d] += int64(n)
	return n, end
}

// chosen takes one of the fault's Times for the connection, if there is one left.
// Callers hold the lock.
func (c *conn) chosen() bool {
	p := c.p
	if c.ended || c.stall || (p.fault.Times > 0 && p.left == 0) {
		return false
	}
	p.left--
	p.stats.Ended++
	p.tell()
	return true
}

func (c *conn) close(e End) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.end(e)
}

// end ends the connection. Callers hold the lock.
func (c *conn) end(e End) {
	if c.ended {
		return
	}
	if e == Stall {
		if !c.stall {
			c.stall = true
			close(c.stalled)
		}
		return
	}
	c.ended = true
	close(c.done)
	for _, s := range []*net.TCPConn{c.client, c.server} {
		if s == nil {
			continue
		}
		if e == Reset {
			_ = s.SetLinger(0) // it may be closed by the other side
		}
		_ = s.Close()
	}
}
