package socketio

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// AcceptOptions are the server side's settings; the zero value is usable.
type AcceptOptions struct {
	// PingInterval and PingTimeout are announced to the client and kept by this side.
	// Defaults 25 s and 60 s, as vantage6 servers have them.
	PingInterval, PingTimeout time.Duration
	// Namespace is the only namespace that may be joined. Default /tasks.
	Namespace string
	// Authorize may refuse the namespace: its error's text is sent to the client. It gets the
	// payload of the client's connect packet. Nil allows everyone.
	Authorize func(auth json.RawMessage) error
	// MaxMessage is the size in bytes above which a message is skipped. Default 1 MiB.
	MaxMessage int64
	// HandshakeTimeout bounds the wait for the client's namespace connect. Default 15 s.
	HandshakeTimeout time.Duration
}

// ServerConn is the server's end of a connection. The owner must Close it.
type ServerConn struct {
	*Conn
	// SID identifies the connection in the namespace.
	SID string
	// Header holds the headers of the client's handshake.
	Header http.Header
}

// Freeze makes this end look dead while the TCP connection stays up: nothing is sent any more
// (Emit succeeds and sends nothing, no pings) and what arrives is thrown away. It cannot be undone.
func (s *ServerConn) Freeze() { s.frozen.Store(true) }

// Drop cuts the connection without a word.
func (s *ServerConn) Drop() {
	s.cancel(ErrClosed)
	<-s.done
}

// Accept upgrades a request to /socket.io/ and waits until the client has joined the namespace.
// On an error the request has been answered.
func Accept(w http.ResponseWriter, r *http.Request, o AcceptOptions) (*ServerConn, error) {
	if o.PingInterval <= 0 {
		o.PingInterval = 25 * time.Second
	}
	if o.PingTimeout <= 0 {
		o.PingTimeout = 60 * time.Second
	}
	if o.Namespace == "" {
		o.Namespace = "/tasks"
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = defaultMaxMessage
	}
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = defaultHandshake
	}
	q := r.URL.Query()
	if q.Get("EIO") != "4" {
		refuseHTTP(w, 5, "Unsupported protocol version")
		return nil, fmt.Errorf("engine.io protocol %q is not supported", q.Get("EIO"))
	}
	if q.Get("transport") != "websocket" {
		refuseHTTP(w, 0, "Transport unknown")
		return nil, fmt.Errorf("transport %q is not supported", q.Get("transport"))
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return nil, err
	}
	c := newConn(ws, o.Namespace, o.MaxMessage, o.PingInterval, o.PingTimeout)
	s := &ServerConn{Conn: c, SID: rand.Text(), Header: r.Header.Clone()}
	c.onConnect = func(p Packet) error { return s.join(p, o.Authorize) }
	c.refused = func(Packet) error { return fmt.Errorf("%w: connect error from a client", ErrPacket) }

	hello, err := json.Marshal(open{
		SID:          rand.Text(),
		Upgrades:     []string{},
		PingTimeout:  o.PingTimeout.Milliseconds(),
		PingInterval: o.PingInterval.Milliseconds(),
		MaxPayload:   o.MaxMessage,
	})
	if err == nil {
		err = c.write(c.ctx, append([]byte{byte(engineOpen)}, hello...))
	}
	if err != nil {
		c.watchdog.Stop()
		_ = ws.CloseNow()
		return nil, err
	}
	pinger := make(chan struct{})
	go func() {
		defer close(pinger)
		c.pings(o.PingInterval)
	}()
	go c.run(pinger)
	wait := time.NewTimer(o.HandshakeTimeout)
	defer wait.Stop()
	select {
	case <-c.connected:
		return s, nil
	case <-c.done:
		if c.hasJoined() {
			return s, nil
		}
		return nil, c.err
	case <-wait.C:
		c.cancel(errors.New("the client did not join the namespace in time"))
		<-c.done
		return nil, c.err
	}
}

// join answers the client's namespace connect; it runs on the reader only.
func (s *ServerConn) join(p Packet, authorize func(json.RawMessage) error) error {
	var refused error
	if p.Namespace != s.namespace {
		refused = errors.New("unknown namespace")
	} else if authorize != nil {
		refused = authorize(p.Data)
	}
	if refused != nil {
		msg, err := json.Marshal(map[string]string{"message": refused.Error()})
		if err != nil {
			return err
		}
		if err := s.send(s.ctx, Packet{Type: ConnectErr, Namespace: p.Namespace, Data: msg}); err != nil {
			return err
		}
		if p.Namespace != s.namespace {
			return nil
		}
		return fmt.Errorf("namespace %s refused: %w", p.Namespace, refused)
	}
	sid, err := json.Marshal(map[string]string{"sid": s.SID})
	if err != nil {
		return err
	}
	if err := s.send(s.ctx, Packet{Type: Connect, Namespace: s.namespace, Data: sid}); err != nil {
		return err
	}
	if !s.hasJoined() {
		close(s.connected)
	}
	return nil
}

// pings sends Engine.IO pings until the connection ends; the answers only have to arrive, which
// the reader's limit on silence sees to.
func (c *Conn) pings(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if c.write(c.ctx, []byte{byte(enginePing)}) != nil {
				return
			}
		case <-c.ctx.Done():
			return
		}
	}
}

func refuseHTTP(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = fmt.Fprintf(w, `{"code":%d,"message":%q}`, code, message)
}
