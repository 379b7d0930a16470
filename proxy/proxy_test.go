package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/proxy/e2e"
)

const token = "header.of-this-run.signature"

var quick = func() limits {
	l := defaultLimits()
	l.retry = backoff.Policy{Min: time.Millisecond, Max: 5 * time.Millisecond}
	return l
}()

// keyOf makes a key for tests, one per name.
var keyOf = func() func(name string) *e2e.PrivateKey {
	var mu sync.Mutex
	keys := map[string]*e2e.PrivateKey{}
	return func(name string) *e2e.PrivateKey {
		mu.Lock()
		defer mu.Unlock()
		if keys[name] == nil {
			k, err := e2e.GeneratePrivateKey(2048)
			if err != nil {
				panic(err)
			}
			keys[name] = k
		}
		return keys[name]
	}
}()

// seen is what the server was asked.
type seen struct {
	Method, URI, Auth string
	Header            http.Header
	Length            int64
	Body              string
}

// fixture is a run's proxy between a scripted server and an algorithm.
type fixture struct {
	t      testing.TB
	api    *API
	server *httptest.Server
	proxy  *httptest.Server
	logs   *logBuffer
	spool  string

	mu   sync.Mutex
	seen []seen
}

type option func(*Config, *limits)

func encrypted(c *Config, _ *limits) { c.Key = keyOf("own") }

func withLimits(f func(*limits)) option { return func(_ *Config, l *limits) { f(l) } }

func withTasks(e TaskEvents) option { return func(c *Config, _ *limits) { c.Tasks = e } }

// newFixture serves handler under /api as the vantage6 server. Bodies that are
// longer than 1 MiB are left for handler to read.
func newFixture(t testing.TB, handler http.HandlerFunc, options ...option) *fixture {
	t.Helper()
	checkLeaks(t)
	f := &fixture{t: t, logs: new(logBuffer), spool: t.TempDir()}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := seen{Method: r.Method, URI: r.RequestURI, Auth: r.Header.Get("Authorization"), Header: r.Header.Clone(), Length: r.ContentLength}
		if r.ContentLength >= 0 && r.ContentLength <= 1<<20 {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				s.Body = string(body)
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
		}
		f.mu.Lock()
		f.seen = append(f.seen, s)
		f.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(f.server.Close)
	base, err := url.Parse(f.server.URL + "/api")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := Config{
		Upstream: &Upstream{Base: base, HTTP: &http.Client{Transport: transport}},
		Run:      Run{RunID: 5, TaskID: 3, NodeID: 6, OrganizationID: 1, CollaborationID: 1, Token: token},
		Keys:     NewKeyCache(KeyCacheOptions{}),
		Log:      slog.New(slog.NewTextHandler(f.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		SpoolDir: f.spool,
	}
	lim := quick
	for _, o := range options {
		o(&c, &lim)
	}
	if f.api, err = newAPI(c, lim); err != nil {
		t.Fatal(err)
	}
	f.proxy = httptest.NewServer(f.api)
	t.Cleanup(func() {
		f.proxy.Close()
		if left, _ := filepath.Glob(filepath.Join(f.spool, "*")); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
		for name, secret := range map[string]string{"token": token, "input": "c2VjcmV0", "plain": "very-secret"} {
			if strings.Contains(f.logs.String(), secret) {
				t.Errorf("the log shows the %s:\n%s", name, f.logs)
			}
		}
	})
	return f
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (f *fixture) requests() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]seen(nil), f.seen...)
}

type reply struct {
	Status int
	Header http.Header
	Body   string
}

func (r reply) msg() string {
	var m struct{ Msg string }
	if json.Unmarshal([]byte(r.Body), &m) != nil {
		return ""
	}
	return m.Msg
}

// do sends a request as the algorithm; headers are "Name: value".
func (f *fixture) do(method, path, body string, headers ...string) reply {
	f.t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := f.send(method, path, content, headers...)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// send is do from any goroutine, with a body that need not be there yet.
func (f *fixture) send(method, path string, content io.Reader, headers ...string) (reply, error) {
	req, err := http.NewRequest(method, f.proxy.URL+path, content)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	client := &http.Client{Transport: f.proxy.Client().Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	return reply{resp.StatusCode, resp.Header, string(text)}, nil
}

// checkLeaks fails the test when goroutines of this package outlive it.
func checkLeaks(t testing.TB) {
	t.Cleanup(func() {
		var dump []byte
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
			dump = make([]byte, 1<<20)
			dump = dump[:runtime.Stack(dump, true)]
			leaked := false
			for i, g := range bytes.Split(dump, []byte("\n\n")) {
				leaked = leaked || i > 0 && bytes.Contains(g, []byte("v6node/proxy.(*")) && !bytes.Contains(g, []byte("testing.tRunner"))
			}
			if !leaked {
				return
			}
		}
		t.Errorf("goroutines are left:\n%s", dump)
	})
}

func b64of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// organizations answers GET /api/organization/ID with the keys of names.
func organizations(w http.ResponseWriter, r *http.Request, names map[string]string) bool {
	id, ok := strings.CutPrefix(r.URL.Path, "/api/organization/")
	if !ok {
		return false
	}
	name, known := names[id]
	switch {
	case !known:
		answerJSON(w, 404, map[string]string{"msg": "organization id=" + id + " not found"})
	case name == "":
		fmt.Fprintf(w, `{"id":%s,"public_key":null}`, id)
	default:
		fmt.Fprintf(w, `{"id":%s,"public_key":%q}`, id, keyOf(name).Public().Base64())
	}
	return true
}

func mustNotBeAsked(t testing.TB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the server was asked %s %s", r.Method, r.RequestURI)
	}
}
