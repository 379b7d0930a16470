package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// serve runs handle for each accepted connection and returns the address to dial.
func serve(t *testing.T, o AcceptOptions, handle func(*ServerConn)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, o)
		if err != nil {
			return
		}
		defer c.Close()
		handle(c)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// raw runs a hand-written server: what it does wrong is the test.
func raw(t *testing.T, handle func(ctx context.Context, ws *websocket.Conn)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		handle(r.Context(), ws)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func say(t *testing.T, ctx context.Context, ws *websocket.Conn, msgs ...string) {
	for _, m := range msgs {
		if err := ws.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
			t.Logf("server: write %.20s: %v", m, err)
		}
	}
}

func hear(ctx context.Context, ws *websocket.Conn) string {
	_, b, err := ws.Read(ctx)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, url string, o Options) *Conn {
	t.Helper()
	c, err := Dial(testContext(t), url, http.Header{"Authorization": {"Bearer tok"}}, "/tasks", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const hello = `0{"sid":"s","upgrades":[],"pingTimeout":60000,"pingInterval":25000}`

func TestEventsTravelBothWays(t *testing.T) {
	url := serve(t, AcceptOptions{}, func(c *ServerConn) {
		ctx := context.Background()
		if c.Header.Get("Authorization") != "Bearer tok" {
			return
		}
		for {
			e, err := c.Read(ctx)
			if err != nil {
				return
			}
			if err := c.Emit(ctx, "echo-"+e.Name, e.Args[0], len(e.Args)); err != nil {
				return
			}
		}
	})
	c := dial(t, url, Options{})
	if err := c.Emit(testContext(t), "hi", map[string]any{"id": 7}, nil); err != nil {
		t.Fatal(err)
	}
	e, err := c.Read(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if e.Name != "echo-hi" || len(e.Args) != 2 || string(e.Args[0]) != `{"id":7}` || string(e.Args[1]) != "2" {
		t.Fatalf("got %+v", e)
	}
}

func TestTheHandshakeIsTheRecordedOne(t *testing.T) {
	heard := make(chan string, 4)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard <- r.URL.Path + " " + r.URL.Query().Get("EIO") + " " + r.URL.Query().Get("transport")
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		say(t, r.Context(), ws, hello)
		heard <- hear(r.Context(), ws)
		say(t, r.Context(), ws, `40/tasks,{"sid":"x"}`, "2probe")
		heard <- hear(r.Context(), ws)
		heard <- hear(r.Context(), ws)
	}))
	defer s.Close()
	c := dial(t, s.URL, Options{})
	want := []string{"/socket.io/ 4 websocket", "40/tasks,{}", "3probe"}
	for _, w := range want {
		if got := <-heard; got != w {
			t.Fatalf("got %q, want %q", got, w)
		}
	}
	c.Close()
	if got := <-heard; got != "41/tasks," {
		t.Fatalf("got %q at close", got)
	}
}

func TestEventsBeforeTheConfirmedNamespaceAreKept(t *testing.T) {
	url := raw(t, func(ctx context.Context, ws *websocket.Conn) {
		say(t, ctx, ws, hello)
		hear(ctx, ws)
		say(t, ctx, ws, `42/tasks,["sync"]`, `42/other,["not for us"]`, `40/tasks,{"sid":"x"}`, `42/tasks,["later"]`)
		hear(ctx, ws)
	})
	c := dial(t, url, Options{})
	for _, want := range []string{"sync", "later"} {
		e, err := c.Read(testContext(t))
		if err != nil || e.Name != want {
			t.Fatalf("got %+v, %v; want %s", e, err, want)
		}
	}
}

func TestARefusedNamespaceIsAConnectError(t *testing.T) {
	url := serve(t, AcceptOptions{Authorize: func(json.RawMessage) error { return errors.New("not you") }}, func(*ServerConn) {})
	_, err := Dial(testContext(t), url, nil, "/tasks", Options{})
	var ce *ConnectError
	if !errors.As(err, &ce) || ce.Message != "not you" {
		t.Fatalf("got %v", err)
	}
	_, err = Dial(testContext(t), url, nil, "/admin", Options{})
	if !errors.As(err, &ce) || ce.Namespace != "/admin" {
		t.Fatalf("got %v", err)
	}
}

func TestAnHTTPRefusalCarriesItsStatus(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "busy", http.StatusServiceUnavailable)
	}))
	defer s.Close()
	_, err := Dial(testContext(t), s.URL, nil, "/tasks", Options{})
	var he *HandshakeError
	if !errors.As(err, &he) || he.Status != 503 || !strings.Contains(he.Body, "busy") {
		t.Fatalf("got %v", err)
	}
}

func TestLongPollingIsRefusedByTheServerSide(t *testing.T) {
	url := serve(t, AcceptOptions{}, func(*ServerConn) {})
	for _, q := range []string{"?EIO=4&transport=polling", "?EIO=3&transport=websocket"} {
		resp, err := http.Get(url + "/socket.io/" + q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("%s: status %d", q, resp.StatusCode)
		}
	}
}

func TestAHugeMessageIsSkippedAndTheConnectionLives(t *testing.T) {
	url := serve(t, AcceptOptions{}, func(c *ServerConn) {
		ctx := context.Background()
		_ = c.Emit(ctx, "algorithm_log", strings.Repeat("x", 100_000))
		_ = c.Emit(ctx, "after")
		<-c.Done()
	})
	c := dial(t, url, Options{MaxMessage: 4096})
	e, err := c.Read(testContext(t))
	if err != nil || e.Name != "after" {
		t.Fatalf("got %+v, %v", e, err)
	}
	if c.Skipped() != 1 {
		t.Fatalf("skipped %d", c.Skipped())
	}
}

func TestWhatThePeerDoesWrongEndsTheConnectionWithTheReason(t *testing.T) {
	tests := []struct {
		name  string
		after func(ctx context.Context, ws *websocket.Conn)
		want  error
	}{
		{"binary frame", func(ctx context.Context, ws *websocket.Conn) {
			_ = ws.Write(ctx, websocket.MessageBinary, []byte{4, 1})
		}, ErrBinary},
		{"binary event", func(ctx context.Context, ws *websocket.Conn) { say(t, ctx, ws, `451-/tasks,["a"]`) }, ErrBinary},
		{"garbage", func(ctx context.Context, ws *websocket.Conn) { say(t, ctx, ws, "hello") }, ErrPacket},
		{"second open", func(ctx context.Context, ws *websocket.Conn) { say(t, ctx, ws, hello) }, ErrPacket},
		{"namespace left", func(ctx context.Context, ws *websocket.Conn) { say(t, ctx, ws, "41/tasks,") }, ErrDisconnected},
		{"engine close", func(ctx context.Context, ws *websocket.Conn) { say(t, ctx, ws, "1") }, ErrDisconnected},
		{"websocket close", func(ctx context.Context, ws *websocket.Conn) { _ = ws.Close(websocket.StatusGoingAway, "") }, ErrDisconnected},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url := raw(t, func(ctx context.Context, ws *websocket.Conn) {
				say(t, ctx, ws, hello)
				hear(ctx, ws)
				say(t, ctx, ws, `40/tasks,{"sid":"x"}`, `42/tasks,["last"]`)
				tt.after(ctx, ws)
				hear(ctx, ws)
			})
			c := dial(t, url, Options{})
			if e, err := c.Read(testContext(t)); err != nil || e.Name != "last" {
				t.Fatalf("what came before is lost: %+v, %v", e, err)
			}
			_, err := c.Read(testContext(t))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if !errors.Is(c.Err(), tt.want) {
				t.Fatalf("Err is %v", c.Err())
			}
			if err := c.Emit(testContext(t), "x"); err == nil {
				t.Fatal("emit on a dead connection succeeds")
			}
		})
	}
}

func TestAnOpenPacketWithImpossibleTimesIsRefused(t *testing.T) {
	for _, o := range []string{`0{}`, `0{"pingInterval":-1,"pingTimeout":5}`, `0{"pingInterval":1e30,"pingTimeout":5}`, "2", "0["} {
		url := raw(t, func(ctx context.Context, ws *websocket.Conn) {
			say(t, ctx, ws, o)
			hear(ctx, ws)
		})
		if _, err := Dial(testContext(t), url, nil, "/tasks", Options{}); !errors.Is(err, ErrPacket) {
			t.Errorf("%s: got %v", o, err)
		}
	}
}

func TestAServerThatNeverConfirmsTheNamespaceTimesOut(t *testing.T) {
	url := raw(t, func(ctx context.Context, ws *websocket.Conn) {
		say(t, ctx, ws, hello)
		for ctx.Err() == nil {
			if _, _, err := ws.Read(ctx); err != nil {
				return
			}
		}
	})
	_, err := Dial(testContext(t), url, nil, "/tasks", Options{HandshakeTimeout: 50 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "handshake") {
		t.Fatalf("got %v", err)
	}
}

func TestAnEventThatAsksForAnAckGetsAnEmptyOne(t *testing.T) {
	got := make(chan string, 1)
	url := raw(t, func(ctx context.Context, ws *websocket.Conn) {
		say(t, ctx, ws, hello)
		hear(ctx, ws)
		say(t, ctx, ws, `40/tasks,{"sid":"x"}`, `42/tasks,5["kill_containers",{}]`)
		got <- hear(ctx, ws)
	})
	dial(t, url, Options{})
	if a := <-got; a != "43/tasks,5[]" {
		t.Fatalf("got %q", a)
	}
}

func TestReadGivesUpWithItsContextAndTheConnectionStays(t *testing.T) {
	url := serve(t, AcceptOptions{}, func(c *ServerConn) {
		if _, err := c.Read(context.Background()); err == nil {
			_ = c.Emit(context.Background(), "pong")
		}
		<-c.Done()
	})
	c := dial(t, url, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := c.Emit(testContext(t), "ping"); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Read(testContext(t)); err != nil || e.Name != "pong" {
		t.Fatalf("got %+v, %v", e, err)
	}
}

func TestCloseIsIdempotentAndQuickEvenWhenThePeerIsFrozen(t *testing.T) {
	url := serve(t, AcceptOptions{}, func(c *ServerConn) {
		c.Freeze()
		<-c.Done()
	})
	c := dial(t, url, Options{})
	start := time.Now()
	c.Close()
	c.Close()
	if d := time.Since(start); d > 5*time.Second {
		t.Fatalf("close took %s", d)
	}
	if _, err := c.Read(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}
