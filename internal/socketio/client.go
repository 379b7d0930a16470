package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"
)

// Options are the client's settings; the zero value is usable.
type Options struct {
	// HTTPClient makes the websocket handshake; its transport decides about proxies and TLS.
	// Default http.DefaultClient.
	HTTPClient *http.Client
	// Auth is sent as the payload of the namespace connect, as JSON. Default {}.
	Auth any
	// MaxMessage is the size in bytes above which a message is skipped. Default 1 MiB.
	MaxMessage int64
	// HandshakeTimeout bounds Dial from the first byte to the joined namespace. Default 15 s.
	HandshakeTimeout time.Duration
}

// HandshakeError says that the server answered the websocket handshake with an HTTP status.
type HandshakeError struct {
	Status int
	Header http.Header
	Body   string // at most 1 KiB
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("websocket handshake answered with HTTP status %d", e.Status)
}

// ConnectError says that the server refused the namespace.
type ConnectError struct {
	Namespace string
	Message   string
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("namespace %s refused: %s", e.Namespace, e.Message)
}

// Dial connects to a Socket.IO endpoint such as https://host:5000/socket.io/ (schemes http,
// https, ws, wss; an empty path becomes /socket.io/) and joins one namespace. Events that the
// server sends before it confirms the namespace are kept for Read. The end of ctx after Dial has
// returned does not touch the connection. Errors are *HandshakeError, *ConnectError, or of the
// network.
func Dial(ctx context.Context, rawURL string, header http.Header, namespace string, o Options) (*Conn, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("socket address: %w", err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/socket.io/"
	}
	q := u.Query()
	q.Set("EIO", "4")
	q.Set("transport", "websocket")
	u.RawQuery = q.Encode()
	if o.MaxMessage <= 0 {
		o.MaxMessage = defaultMaxMessage
	}
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = defaultHandshake
	}
	if o.Auth == nil {
		o.Auth = struct{}{}
	}
	auth, err := json.Marshal(o.Auth)
	if err != nil {
		return nil, fmt.Errorf("connect payload: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.HandshakeTimeout, fmt.Errorf("no complete handshake within %s", o.HandshakeTimeout))
	defer cancel()

	ws, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPClient: o.HTTPClient, HTTPHeader: header})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
			return nil, &HandshakeError{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	hello, err := readOpen(ctx, ws)
	if err != nil {
		_ = ws.CloseNow()
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	c := newConn(ws, namespace, o.MaxMessage, time.Duration(hello.PingInterval)*time.Millisecond, time.Duration(hello.PingTimeout)*time.Millisecond)
	c.onConnect = c.joined
	c.refused = func(p Packet) error { return &ConnectError{Namespace: namespace, Message: refusal(p.Data)} }
	go c.run()
	err = c.send(ctx, Packet{Type: Connect, Namespace: namespace, Data: auth})
	if err == nil {
		select {
		case <-c.connected:
			return c, nil
		case <-c.done:
			err = c.err
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	c.cancel(err)
	<-c.done
	if c.hasJoined() {
		return c, nil // it has ended since, which Read tells after the events that came
	}
	return nil, c.err
}

// joined handles the server's confirmation; it runs on the reader only.
func (c *Conn) joined(p Packet) error {
	if p.Namespace != c.namespace {
		return nil
	}
	if !c.hasJoined() {
		close(c.connected)
	}
	return nil
}

func (c *Conn) hasJoined() bool {
	select {
	case <-c.connected:
		return true
	default:
		return false
	}
}

// readOpen reads the Engine.IO open packet and checks that its times make sense.
func readOpen(ctx context.Context, ws *websocket.Conn) (open, error) {
	var o open
	_, msg, err := ws.Read(ctx)
	if err != nil {
		return o, err
	}
	kind, body, err := splitEngine(msg)
	if err != nil {
		return o, err
	}
	if kind != engineOpen {
		return o, fmt.Errorf("%w: Engine.IO type %q instead of open", ErrPacket, byte(kind))
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return o, fmt.Errorf("%w: open: %w", ErrPacket, err)
	}
	const day = 24 * 60 * 60 * 1000
	if o.PingInterval <= 0 || o.PingTimeout <= 0 || o.PingInterval > day || o.PingTimeout > day {
		return o, fmt.Errorf("%w: open: pingInterval %d ms and pingTimeout %d ms are out of range", ErrPacket, o.PingInterval, o.PingTimeout)
	}
	return o, nil
}

// refusal reads the reason out of a connect error, which is an object or, in old servers, a string.
func refusal(data json.RawMessage) string {
	var obj struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &obj) == nil && obj.Message != "" {
		return obj.Message
	}
	var s string
	if json.Unmarshal(data, &s) == nil && s != "" {
		return s
	}
	return "no reason given"
}
