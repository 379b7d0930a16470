package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6node/v6node/internal/socketio"
)

const (
	goodKey = "3f0a5dd8-0000-4000-8000-000000000001"
	nodeID  = 6
	orgID   = 2
	collab  = 1
)

// fake is a small v4 server that records what it is asked. Tests replace single answers with on.
type fake struct {
	t   *testing.T
	srv *httptest.Server

	mu       sync.Mutex
	life     time.Duration
	issued   int             // tokens so far; access tokens are numbered
	revoked  map[string]bool // tokens that are no longer accepted
	logins   int
	refreshs int
	answers  map[string]http.HandlerFunc // "METHOD /path" below /api; "socket" for the handshake
	seen     []string                    // "METHOD /path?query body"
	headers  []http.Header
	peers    map[string]bool // the node's ends of the connections
	keyGone  bool

	accept  socketio.AcceptOptions
	sockets chan *socket // each connection that has joined /tasks
	joined  int
	onJoin  func(*socket) // set before the node connects
}

// socket is one connection of the node.
type socket struct {
	*socketio.ServerConn
	token string
	n     int // 1 for the first
}

func newFake(t *testing.T) *fake {
	f := &fake{
		t: t, life: 6 * time.Hour, revoked: map[string]bool{}, answers: map[string]http.HandlerFunc{}, peers: map[string]bool{},
		sockets: make(chan *socket, 100),
	}
	f.onJoin = func(s *socket) { f.emit(s, "sync") }
	f.srv = httptest.NewUnstartedServer(f)
	t.Cleanup(func() {
		if f.srv.URL != "" {
			f.srv.CloseClientConnections()
			f.srv.Close()
		}
	})
	return f
}

func (f *fake) start() *fake { f.srv.Start(); return f }

func (f *fake) on(route string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[route] = h
}

func (f *fake) emit(s *socket, name string, args ...any) {
	if err := s.Emit(context.Background(), name, args...); err != nil {
		f.t.Logf("emit %s: %v", name, err)
	}
}

func (f *fake) jwt(kind string) string {
	f.issued++
	now := time.Now().Unix()
	claims := fmt.Sprintf(`{"iat":%d,"exp":%d,"nbf":%d,"jti":"x","type":%q,"sub":%d,"client_type":"node","n":%d}`,
		now, now+int64(f.life.Seconds()), now, kind, nodeID, f.issued)
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"HS256"}`)) + "." + enc([]byte(claims)) + ".c2ln"
}

func (f *fake) tokens(w http.ResponseWriter) {
	reply(w, 200, map[string]any{"access_token": f.jwt("access"), "refresh_token": f.jwt("refresh"), "refresh_url": "/api/token/refresh", "node_url": fmt.Sprintf("/api/node/%d", nodeID)})
}

func (f *fake) revoke(tok string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked[tok] = true
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func msg(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { reply(w, code, map[string]string{"msg": text}) }
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/socket.io/" {
		f.socket(w, r)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/api")
	if !ok {
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	route := r.Method + " " + path
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	f.mu.Lock()
	line := route
	if r.URL.RawQuery != "" {
		line += "?" + r.URL.RawQuery
	}
	if len(body) > 0 {
		line += " " + string(body)
	}
	f.seen = append(f.seen, line)
	f.headers = append(f.headers, r.Header.Clone())
	f.peers[r.RemoteAddr] = true
	h := f.answers[route]
	if h == nil {
		switch route {
		case "POST /token/node":
			h = f.login(body)
		case "POST /token/refresh":
			f.refreshs++
			h = func(w http.ResponseWriter, _ *http.Request) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.tokens(w)
			}
		case fmt.Sprintf("GET /node/%d", nodeID):
			h = func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, map[string]any{"id": nodeID, "name": "alpha", "organization": map[string]any{"id": orgID}, "collaboration": map[string]any{"id": collab}})
			}
		case fmt.Sprintf("GET /organization/%d", orgID):
			h = func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, map[string]any{"id": orgID, "name": "Alpha hospital", "public_key": nil})
			}
		case fmt.Sprintf("GET /collaboration/%d", collab):
			h = func(w http.ResponseWriter, _ *http.Request) {
				reply(w, 200, map[string]any{"id": collab, "name": "study", "encrypted": true})
			}
		default:
			h = msg(404, "no such route in the fake: "+route)
		}
	}
	if path != "/token/node" && (bearer == "" || f.revoked[bearer]) {
		h = msg(401, "Token has expired")
	}
	f.mu.Unlock()
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	h(w, r)
}

func (f *fake) login(body []byte) http.HandlerFunc {
	var in struct {
		Key string `json:"api_key"`
	}
	_ = json.Unmarshal(body, &in)
	f.logins++
	if in.Key != goodKey || f.keyGone {
		return msg(401, "Api key is not recognized!")
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.tokens(w)
	}
}

func (f *fake) socket(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	refuse := f.answers["socket"]
	f.mu.Unlock()
	if refuse != nil {
		refuse(w, r)
		return
	}
	c, err := socketio.Accept(w, r, f.accept)
	if err != nil {
		return
	}
	defer c.Close()
	s := &socket{ServerConn: c, token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}
	f.mu.Lock()
	f.joined++
	s.n = f.joined
	f.mu.Unlock()
	f.sockets <- s
	f.onJoin(s)
	<-c.Done()
}

// asked returns the requests whose line begins with prefix.
func (f *fake) asked(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.seen {
		if strings.HasPrefix(s, prefix) {
			out = append(out, s)
		}
	}
	return out
}

func (f *fake) count() (logins, refreshs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins, f.refreshs
}

// quick are intervals for tests: what a test waits for is short, what it does not want is far.
var quick = Timing{
	Sync: 10 * time.Second, FirstPing: time.Hour, PingEvery: time.Hour,
	BackoffMin: 2 * time.Millisecond, BackoffMax: 20 * time.Millisecond, Stable: time.Hour,
}

func (f *fake) node(change func(*Config)) *V4 {
	f.t.Helper()
	c := Config{URL: f.srv.URL, APIPath: "/api", APIKey: goodKey, PollInterval: time.Hour, Timing: quick}
	if change != nil {
		change(&c)
	}
	v, err := NewV4(c)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(v.Close)
	return v
}

func (f *fake) connected(change func(*Config)) *V4 {
	f.t.Helper()
	v := f.node(change)
	if _, err := v.Connect(within(f.t)); err != nil {
		f.t.Fatal(err)
	}
	return v
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// heard is a running Listen.
type heard struct {
	t      *testing.T
	events chan Event
	done   chan error
	stop   context.CancelFunc
}

func listen(t *testing.T, v *V4) *heard {
	ctx, cancel := context.WithCancel(t.Context())
	h := &heard{t: t, events: make(chan Event, 1000), done: make(chan error, 1), stop: cancel}
	go func() { h.done <- v.Listen(ctx, func(_ context.Context, e Event) { h.events <- e }) }()
	t.Cleanup(func() {
		cancel()
		<-h.done
	})
	return h
}

// next waits for the next event, which must be of this kind.
func (h *heard) next(kind EventKind) Event {
	h.t.Helper()
	select {
	case e := <-h.events:
		if e.Kind != kind {
			h.t.Fatalf("got %s, want %s", e.Kind, kind)
		}
		return e
	case err := <-h.done:
		h.done <- err
		h.t.Fatalf("Listen ended with %v while waiting for %s", err, kind)
	case <-time.After(30 * time.Second):
		h.t.Fatalf("no %s", kind)
	}
	return Event{}
}

func (f *fake) nextSocket() *socket {
	f.t.Helper()
	select {
	case s := <-f.sockets:
		return s
	case <-time.After(30 * time.Second):
		f.t.Fatal("the node does not connect")
		return nil
	}
}

// receive returns the next event from the node.
func (s *socket) receive(t *testing.T) (string, string) {
	t.Helper()
	e, err := s.Read(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Args) == 0 {
		return e.Name, ""
	}
	return e.Name, string(e.Args[0])
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
