package egress

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/proxy/forward"
	"github.com/v6node/v6node/proxy/internal/logtest"
)

// bench is a proxy that serves, in a world in which names lead where the test
// says and every address is the machine's loopback.
type bench struct {
	t       *testing.T
	address string
	log     *logtest.Records
	client  *http.Client
	end     func() error

	mu      sync.Mutex
	names   map[string][]string
	asked   []string // of the name server
	dialled []string
	real    string // where every connection goes
	meters  map[string]*forward.Meter
}

// meter counts by target.
func (b *bench) meter(target string) *forward.Meter {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.meters[target]
	if m == nil {
		m = new(forward.Meter)
		b.meters[target] = m
	}
	return m
}

func newBench(t *testing.T, rules Rules, lim limits) *bench {
	t.Helper()
	b := &bench{t: t, log: &logtest.Records{}, names: map[string][]string{}, meters: map[string]*forward.Meter{}}
	p := newProxy(Config{Meter: b.meter, List: compile(t, rules), Gate: forward.NewGate(), Log: slog.New(slog.NewTextHandler(b.log, nil)).With("run", 7)}, lim)
	p.resolve = func(_ context.Context, name string) ([]netip.Addr, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.asked = append(b.asked, name)
		list, ok := b.names[name]
		if !ok {
			return nil, errors.New("no such host")
		}
		var out []netip.Addr
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out, nil
	}
	p.connect = func(ctx context.Context, _, address string) (net.Conn, error) {
		b.mu.Lock()
		b.dialled = append(b.dialled, address)
		real := b.real
		b.mu.Unlock()
		if strings.HasPrefix(address, "9.9.9.9:") {
			return nil, errors.New("connection refused")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", real)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, l) }()
	b.end = sync.OnceValue(func() error { cancel(); return <-done })
	proxy := &url.URL{Scheme: "http", Host: b.address}
	b.client = &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyURL(proxy)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// raw sends a text to the proxy and returns the connection.
func (b *bench) raw(text string) net.Conn {
	b.t.Helper()
	c, err := net.Dial("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) status(text string) (int, string) {
	b.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(b.raw(text)), nil)
	if err != nil {
		b.t.Fatalf("%q: %v", text, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func read(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestAPlainRequestPasses(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.org"}, Ports: []int{80, 8080}}, defaultLimits())
	var got *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(bytes.ToUpper(body))
	}))
	t.Cleanup(srv.Close)
	b.real = srv.Listener.Addr().String()
	b.names["example.org"] = []string{"9.9.9.9", "93.184.216.34"}
	req, err := http.NewRequest("POST", "http://example.org:8080/secret-path?secret-query", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Proxy-Authorization", "Basic hush")
	req.Header.Set("Authorization", "Bearer mine")
	resp, err := b.client.Do(req)
	if text := read(t, resp, err); text != "HELLO" || resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Answer") != "yes" {
		t.Errorf("%d %q", resp.StatusCode, text)
	}
	if got.Host != "example.org:8080" || got.URL.Path != "/secret-path" || got.URL.RawQuery != "secret-query" || got.Header.Get("Authorization") != "Bearer mine" ||
		got.Header.Get("Proxy-Authorization") != "" || got.Header.Get("X-Forwarded-For") != "" {
		t.Errorf("the server got %s %s %v", got.Host, got.URL, got.Header)
	}
	if err := b.end(); err != nil {
		t.Error(err)
	}
	if d := strings.Join(b.dialled, " "); d != "9.9.9.9:8080 93.184.216.34:8080" {
		t.Errorf("dialled %s", d)
	}
	if text := b.log.String(); !strings.Contains(text, "run=7 method=POST target=example.org:8080 decision=allowed status=418 sent=230 received=5") || strings.Contains(text, "secret") {
		t.Errorf("the log says %s", text)
	}
}

func TestATunnelPassesAndVerifiesItsOwnCertificate(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.com"}}, defaultLimits())
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "over TLS to ", r.Host) }))
	t.Cleanup(srv.Close)
	b.real = srv.Listener.Addr().String()
	b.names["example.com"] = []string{"93.184.216.34"}
	b.client.Transport.(*http.Transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig
	resp, err := b.client.Get("https://example.com/secret")
	if text := read(t, resp, err); text != "over TLS to example.com" {
		t.Errorf("%q", text)
	}
	b.client.CloseIdleConnections()
	if err := b.end(); err != nil {
		t.Error(err)
	}
	if text := b.log.String(); !strings.Contains(text, "method=CONNECT target=example.com:443 decision=allowed status=200 sent=") || strings.Contains(text, "sent=0") || strings.Contains(text, "secret") {
		t.Errorf("the log says %s", text)
	}
}

func TestWhatIsNotListedIsRefusedAndNotLookedUp(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.org"}, IPs: []string{"10.1.2.3"}}, defaultLimits())
	for _, text := range []string{
		"CONNECT data-in-a-name.evil.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT example.org:22 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT 10.1.2.4:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://evil.com/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"GET http://localhost/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
	} {
		if status, body := b.status(text); status != http.StatusForbidden || !strings.Contains(body, "not on the node's whitelist") {
			t.Errorf("%q: %d %s", text, status, body)
		}
	}
	if len(b.asked)+len(b.dialled) != 0 {
		t.Errorf("asked for %q, dialled %q", b.asked, b.dialled)
	}
	if n := strings.Count(b.log.String(), "run=7"); n != 7 {
		t.Errorf("%d lines are logged:\n%s", n, b.log)
	}
}

func TestANameThatLeadsInsideIsRefused(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.org", "both.org", "listed.org"}, IPs: []string{"10.1.2.3"}}, defaultLimits())
	b.names["example.org"] = []string{"169.254.169.254"}
	b.names["both.org"] = []string{"93.184.216.34", "::ffff:127.0.0.1"}
	b.names["listed.org"] = []string{"10.1.2.3"}
	for _, host := range []string{"example.org", "both.org"} {
		for _, text := range []string{"CONNECT " + host + ":443 HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://" + host + "/ HTTP/1.1\r\nHost: x\r\n\r\n"} {
			if status, body := b.status(text); status != http.StatusForbidden || !strings.Contains(body, "not a public one") || strings.Contains(body, "169.254") || strings.Contains(body, "127.0") {
				t.Errorf("%q: %d %s", text, status, body)
			}
		}
	}
	if len(b.dialled) != 0 || !strings.Contains(b.log.String(), "169.254.169.254") {
		t.Errorf("dialled %q, logged %s", b.dialled, b.log)
	}
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	b.real = srv.Listener.Addr().String()
	resp, err := b.client.Get("http://listed.org/")
	if read(t, resp, err); resp.StatusCode != http.StatusNotFound || strings.Join(b.dialled, " ") != "10.1.2.3:80" {
		t.Errorf("%d, dialled %q", resp.StatusCode, b.dialled)
	}
}

// TestEachConnectionIsCheckedAnew: a name that changes its address between two
// connections is looked at twice, and what is connected to is what was looked at.
func TestEachConnectionIsCheckedAnew(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.org"}}, defaultLimits())
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	b.real = srv.Listener.Addr().String()
	const ask = "GET http://example.org/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	b.names["example.org"] = []string{"93.184.216.34"}
	srv.Config.SetKeepAlivesEnabled(false)
	if status, _ := b.status(ask); status != http.StatusNotFound {
		t.Errorf("a public address: %d", status)
	}
	b.mu.Lock()
	b.names["example.org"] = []string{"192.168.0.1"}
	b.mu.Unlock()
	if status, _ := b.status(ask); status != http.StatusForbidden {
		t.Errorf("a private address after it: %d", status)
	}
	if len(b.asked) != 2 || strings.Join(b.dialled, " ") != "93.184.216.34:80" {
		t.Errorf("asked %q, dialled %q", b.asked, b.dialled)
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	lim := defaultLimits()
	lim.bytes = 4 << 10
	b := newBench(t, Rules{Domains: []string{"example.org"}}, lim)
	for text, want := range map[string]int{
		"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n":                                               http.StatusBadRequest,
		"GET https://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n":                            http.StatusBadRequest,
		"GET http://u:p@example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n":                         http.StatusBadRequest,
		"GET http://example.org/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n":  http.StatusBadRequest,
		"CONNECT example.org HTTP/1.1\r\nHost: x\r\n\r\n":                                           http.StatusBadRequest,
		"CONNECT example.org:443:1 HTTP/1.1\r\nHost: x\r\n\r\n":                                     http.StatusBadRequest,
		"CONNECT 2130706433:443 HTTP/1.1\r\nHost: x\r\n\r\n":                                        http.StatusBadRequest,
		"CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\nHost: x\r\n\r\n":                                http.StatusBadRequest,
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n":                                                     http.StatusBadRequest,
		"GET http://example.org/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 10<<10) + "\r\n": http.StatusRequestHeaderFieldsTooLarge,
		"nonsense\r\n\r\n": http.StatusBadRequest,
		"GET http://example.org/ HTTP/1.1\r\nHost: x\r\n\r\n": http.StatusBadGateway, // no such host
	} {
		if status, body := b.status(text); status != want {
			t.Errorf("%.60q: %d %s", text, status, body)
		}
	}
	if len(b.dialled) != 0 {
		t.Errorf("dialled %q", b.dialled)
	}
}

func TestSilenceEndsWhatIsUnderWay(t *testing.T) {
	lim := defaultLimits()
	lim.header, lim.silence, lim.response = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	b := newBench(t, Rules{Domains: []string{"example.org"}, Ports: []int{80}}, lim)
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.real = l.Addr().String()
	b.names["example.org"] = []string{"93.184.216.34"}
	if status, _ := b.status("GET http://example.org/ HTTP/1.1\r\nHost: x\r\n\r\n"); status != http.StatusBadGateway && status != http.StatusGatewayTimeout {
		t.Errorf("a silent server: %d", status)
	}
	c := b.raw("CONNECT example.org:80 HTTP/1.1\r\nHost: x\r\n\r\n")
	if text, err := io.ReadAll(c); err != nil || !strings.Contains(string(text), "200 Connection established") {
		t.Errorf("a silent tunnel: %q, %v", text, err)
	}
	c = b.raw("GET http://example.org/ HTTP/1.1\r\nHo")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("half a request: %v", err)
	}
}

func TestADefectIsTold(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.org"}}, defaultLimits())
	b.names["example.org"] = []string{"no address"} // at which the test's own resolver panics
	c := b.raw("CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	if text, err := io.ReadAll(c); err != nil && !errors.Is(err, unix.ECONNRESET) || len(text) > 0 {
		t.Errorf("%q, %v", text, err)
	}
	if err := b.end(); err != nil {
		t.Error(err)
	}
	if text := b.log.String(); !strings.Contains(text, "run=7 target=example.org:443 panic=") {
		t.Errorf("the log says %s", text)
	}
}

func TestTheEndOfTheRunEndsItsRequests(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.org"}}, defaultLimits())
	arrived := make(chan struct{}, 2)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	b.real = srv.Listener.Addr().String()
	b.names["example.org"] = []string{"93.184.216.34"}
	plain := b.raw("GET http://example.org/ HTTP/1.1\r\nHost: x\r\n\r\n")
	tunnel := b.raw("CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	<-arrived
	if err := b.end(); err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{plain, tunnel} {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Error("a connection is left open")
		}
	}
	if n := strings.Count(b.log.String(), "run=7"); n != 2 {
		t.Errorf("%d requests are logged:\n%s", n, b.log)
	}
}

func TestEachRequestIsCountedForItsHostAndPort(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{".example.org"}, Ports: []int{80, 443}}, defaultLimits())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/off" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "answer")
	}))
	t.Cleanup(srv.Close)
	b.real = srv.Listener.Addr().String()
	for _, name := range []string{"a.example.org", "b.example.org"} {
		b.names[name] = []string{"93.184.216.34"}
	}
	b.names["down.example.org"] = []string{"9.9.9.9"}
	b.names["inside.example.org"] = []string{"10.0.0.1"}
	get := func(host, path string) string {
		return "GET http://" + host + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
	}
	heads := int64(0)
	for _, path := range []string{"/", "/?data=" + strings.Repeat("x", 1000)} {
		text := get("a.example.org", path)
		heads += int64(len(text))
		if code, _ := b.status(text); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	broken := get("a.example.org", "/off")
	heads += int64(len(broken))
	if code, _ := b.status(broken); code != http.StatusBadGateway {
		t.Errorf("a broken answer: %d", code)
	}
	through := b.raw("CONNECT b.example.org:80 HTTP/1.1\r\nHost: x\r\n\r\n")
	inside := bufio.NewReader(through)
	if resp, err := http.ReadResponse(inside, nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	ask := "GET / HTTP/1.0\r\nHost: x\r\n\r\n"
	if _, err := io.WriteString(through, ask); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(inside)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"down.example.org", "inside.example.org", "evil.example.net", "other.example.net"} {
		for _, text := range []string{get(host, "/"), "CONNECT " + host + ":80 HTTP/1.1\r\nHost: x\r\n\r\n"} {
			if code, _ := b.status(text); code < 400 {
				t.Errorf("%s: %d", host, code)
			}
		}
	}
	b.client.CloseIdleConnections()
	if err := b.end(); err != nil {
		t.Error(err)
	}
	want := map[string]forward.Count{
		"a.example.org:80":      {Connections: 3, Sent: heads, Received: 12},
		"b.example.org:80":      {Connections: 1, Sent: int64(len(ask)), Received: int64(len(answer))},
		"down.example.org:80":   {Failed: 2},
		"inside.example.org:80": {Failed: 2},
		"":                      {Failed: 4},
	}
	for target, m := range b.meters {
		if got := m.Count(); got != want[target] {
			t.Errorf("for %q %+v was counted, wanted %+v", target, got, want[target])
		}
	}
	if len(b.meters) != len(want) {
		t.Errorf("%d hosts have counters", len(b.meters))
	}
	for _, line := range []string{
		"run=7 method=GET target=down.example.org:80 decision=allowed status=502 sent=0 ", "run=7 method=CONNECT target=inside.example.org:80 decision=refused status=403 sent=0 ",
		"run=7 method=GET target=inside.example.org:80 decision=refused status=403 sent=0 ", "run=7 method=GET target=evil.example.net:80 decision=refused status=403 sent=0 ",
	} {
		if text := b.log.String(); !strings.Contains(text, line) {
			t.Errorf("the log does not say %s: %s", line, text)
		}
	}
}

func TestATunnelPassesOnTheEndOfOneDirection(t *testing.T) {
	b := newBench(t, Rules{Domains: []string{"example.org"}}, defaultLimits())
	b.names["example.org"] = []string{"93.184.216.34"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.real = l.Addr().String()
	// Text behind the request's head comes along with it, or later.
	for _, early := range []string{"", "early "} {
		c := b.raw("CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n" + early)
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		if _, err := io.WriteString(c, "question"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		heard, err := io.ReadAll(far)
		if err != nil || string(heard) != early+"question" {
			t.Errorf("%q, %v", heard, err)
		}
		if _, err := io.WriteString(far, "answer"); err != nil {
			t.Fatal(err)
		}
		far.Close()
		if text, err := io.ReadAll(r); err != nil || string(text) != "answer" {
			t.Errorf("%q, %v", text, err)
		}
	}
}
