package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

var (
	// ErrClosed: this side closed the connection.
	ErrClosed = errors.New("connection closed")
	// ErrDisconnected: the other side left the namespace or closed the connection in order.
	ErrDisconnected = errors.New("disconnected by the peer")
	// ErrPeerDead: nothing, not even a ping, was heard for pingInterval + pingTimeout.
	ErrPeerDead = errors.New("the peer has gone silent")
)

const (
	defaultMaxMessage = 1 << 20
	defaultHandshake  = 15 * time.Second
	eventBuffer       = 256
	closeGrace        = time.Second
)

// Conn is one connection to one namespace. All methods may be called at the same time from
// several goroutines. Whoever got it from Dial or Accept must Close it.
//
// Pings are answered inside. That needs a reader: when more than 256 events wait for Read, the
// connection is no longer read, and in the end the peer gives it up.
type Conn struct {
	ws        *websocket.Conn
	namespace string
	max       int64
	silence   time.Duration // how long the peer may say nothing
	patience  time.Duration // how long one write may take

	events    chan Event
	connected chan struct{} // closed when the namespace is joined (client) or asked for (server)
	onConnect func(Packet) error
	refused   func(Packet) error

	ctx       context.Context // ends the reader
	cancel    context.CancelCauseFunc
	closing   chan struct{}
	closeOnce sync.Once
	done      chan struct{} // closed when the reader has ended
	err       error         // why; written before done is closed

	watchdog *time.Timer // runs while the reader waits for the peer
	frozen   atomic.Bool
	skipped  atomic.Int64
}

func newConn(ws *websocket.Conn, namespace string, maxMessage int64, interval, timeout time.Duration) *Conn {
	c := &Conn{
		ws:        ws,
		namespace: namespace,
		max:       maxMessage,
		silence:   interval + timeout,
		patience:  timeout,
		events:    make(chan Event, eventBuffer),
		connected: make(chan struct{}),
		closing:   make(chan struct{}),
		done:      make(chan struct{}),
	}
	// Oversized messages are skipped by readMessage, in constant memory, so that one huge log
	// line of another node does not cost the connection.
	ws.SetReadLimit(-1)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.watchdog = time.AfterFunc(c.silence, func() {
		if !c.frozen.Load() {
			c.cancel(ErrPeerDead)
		}
	})
	return c
}

// Read returns the next event. It fails with the reason when the connection has ended (events
// that had arrived before are returned first), or with the context's error; the end of ctx does
// not harm the connection.
func (c *Conn) Read(ctx context.Context) (Event, error) {
	select {
	case e := <-c.events:
		return e, nil
	default:
	}
	select {
	case e := <-c.events:
		return e, nil
	case <-c.done:
		select {
		case e := <-c.events:
			return e, nil
		default:
			return Event{}, c.err
		}
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
}

// Emit sends an event; the arguments are encoded as JSON. If ctx ends while the event is being
// written, the connection is closed: half an event cannot be taken back.
func (c *Conn) Emit(ctx context.Context, name string, args ...any) error {
	data, err := encodeEvent(name, args)
	if err != nil {
		return err
	}
	return c.send(ctx, Packet{Type: EventPacket, Namespace: c.namespace, Data: data})
}

// Done is closed when the connection has ended; Err then tells why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is the reason for the end of the connection, nil before it.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Skipped counts the messages that were dropped for being larger than allowed.
func (c *Conn) Skipped() int64 { return c.skipped.Load() }

// Close leaves the namespace, closes the websocket and waits until the connection's goroutine
// has ended: at most about a second when the peer does not answer. Calling it again is harmless.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closing)
		stop := time.AfterFunc(closeGrace, func() { c.cancel(ErrClosed) })
		defer stop.Stop()
		ctx, cancel := context.WithTimeout(c.ctx, closeGrace)
		defer cancel()
		if c.send(ctx, Packet{Type: Disconnect, Namespace: c.namespace}) == nil {
			// The reader sees the peer's answer; a failure only means that it was gone already.
			_ = c.ws.Close(websocket.StatusNormalClosure, "")
		}
		c.cancel(ErrClosed)
	})
	<-c.done
	return nil
}

func (c *Conn) send(ctx context.Context, p Packet) error {
	return c.write(ctx, append([]byte{byte(engineMessage)}, p.Encode()...))
}

func (c *Conn) write(ctx context.Context, msg []byte) error {
	if c.frozen.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, msg); err != nil {
		select {
		case <-c.done:
			return c.err
		default:
			return err
		}
	}
	return nil
}

// run reads until the connection ends. It is the connection's only goroutine, but for the helpers,
// which end with c.ctx and which it waits for.
func (c *Conn) run(helpers ...<-chan struct{}) {
	err := c.loop()
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause
	} else {
		select {
		case <-c.closing:
			err = ErrClosed
		default:
		}
	}
	c.err = err
	c.cancel(err)
	c.watchdog.Stop()
	_ = c.ws.CloseNow()
	for _, h := range helpers {
		<-h
	}
	close(c.done)
}

func (c *Conn) loop() error {
	for {
		msg, err := c.readMessage()
		if err != nil {
			return err
		}
		if msg == nil || c.frozen.Load() {
			continue
		}
		kind, body, err := splitEngine(msg)
		if err != nil {
			return err
		}
		switch kind {
		case enginePing:
			err = c.write(c.ctx, append([]byte{byte(enginePong)}, body...))
		case engineClose:
			err = ErrDisconnected
		case engineMessage:
			err = c.packet(body)
		case engineOpen, engineUpgrade:
			err = fmt.Errorf("%w: Engine.IO type %q at this point", ErrPacket, byte(kind))
		case enginePong, engineNoop:
		}
		if err != nil {
			return err
		}
	}
}

func (c *Conn) packet(body []byte) error {
	p, err := DecodePacket(body)
	if err != nil {
		return err
	}
	if p.Namespace != c.namespace && p.Type != Connect {
		return nil // other namespaces are none of our business
	}
	switch p.Type {
	case Connect:
		return c.onConnect(p)
	case ConnectErr:
		return c.refused(p)
	case Disconnect:
		return ErrDisconnected
	case EventPacket:
		e, err := decodeEvent(p.Data)
		if err != nil {
			return err
		}
		select {
		case c.events <- e:
		case <-c.closing:
		case <-c.ctx.Done():
		}
		if p.ID != nil {
			return c.send(c.ctx, Packet{Type: Ack, Namespace: c.namespace, ID: p.ID, Data: json.RawMessage("[]")})
		}
	case Ack: // we never ask for one
	}
	return nil
}

// readMessage returns the next text message, or nil for one that was too large and skipped.
func (c *Conn) readMessage() ([]byte, error) {
	c.watchdog.Reset(c.silence)
	defer c.watchdog.Stop()
	kind, r, err := c.ws.Reader(c.ctx)
	if err != nil {
		return nil, c.readError(err)
	}
	if kind != websocket.MessageText {
		return nil, ErrBinary
	}
	msg, err := io.ReadAll(io.LimitReader(r, c.max+1))
	if err != nil {
		return nil, c.readError(err)
	}
	if int64(len(msg)) <= c.max {
		if msg == nil {
			msg = []byte{}
		}
		return msg, nil
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, c.readError(err)
	}
	c.skipped.Add(1)
	return nil, nil
}

func (c *Conn) readError(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	if s := websocket.CloseStatus(err); s == websocket.StatusNormalClosure || s == websocket.StatusGoingAway || s == websocket.StatusNoStatusRcvd {
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	return err
}

// open is the payload of the Engine.IO open packet; times are in milliseconds.
type open struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingTimeout  int64    `json:"pingTimeout"`
	PingInterval int64    `json:"pingInterval"`
	MaxPayload   int64    `json:"maxPayload,omitempty"`
}
