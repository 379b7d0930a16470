package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestOnlyTheRunsOwnTokenIsAccepted(t *testing.T) {
	f := newFixture(t, mustNotBeAsked(t))
	ask := func(values ...string) reply {
		req, err := http.NewRequest("GET", f.proxy.URL+"/task/1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Authorization"] = values
		resp, err := f.proxy.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return reply{resp.StatusCode, resp.Header, string(body)}
	}
	if r := ask(); r.Status != 401 || r.msg() == "" {
		t.Errorf("no token: %+v", r)
	}
	for _, v := range [][]string{
		{"Bearer header.of-another-run.signature"}, {"Bearer"}, {"Bearer "}, {token}, {"Basic " + token},
		{"Bearer " + token + "x"}, {"Bearer " + token[1:]}, {"Bearer  " + token}, {"Bearer " + token, "Bearer other"}, {""},
	} {
		if r := ask(v...); r.Status != 403 || r.msg() == "" {
			t.Errorf("%q: %+v", v, r)
		}
	}
}

func TestSchemeOfTheTokenIsCaseInsensitive(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {})
	if r := f.do("GET", "/task/1", "", "Authorization: bearer "+token); r.Status != 200 {
		t.Fatalf("%+v", r)
	}
}

// raw sends a request line by hand.
func (f *fixture) raw(line string, headers ...string) reply {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.proxy.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "%s\r\nHost: proxyserver:8080\r\nAuthorization: Bearer %s\r\n", line, token)
	for _, h := range headers {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprint(conn, "Connection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		f.t.Fatalf("%s: %v", line, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body)}
}

func TestNoRequestLeavesTheAPIsPath(t *testing.T) {
	f := newFixture(t, mustNotBeAsked(t))
	for _, target := range []string{
		"/../token/node", "/task/../../secret", "/task/..", "/./task", "/task/.", "/..", "/%2e%2e/token", "/task/%2e%2e/%2e%2e/x",
		"/..%2fadmin", "/task%2f1", "/task%5c..%5c..", `/task\..\..`, "//evil.example/task", "/task//1", "/task/1//", "/task;x=1",
		"/%74ask", "/task%00", "/task%0d%0aX:y", "/task/é", "/task/1%", "/task/%zz", "/@evil.example/", "/task:1",
		"http://evil.example/task", "https://evil.example/", "http://proxyserver:8080/task/1", "evil.example:443", "*",
	} {
		if r := f.raw("GET " + target + " HTTP/1.1"); r.Status != 400 {
			t.Errorf("%s: status %d %s", target, r.Status, r.Body)
		}
	}
	for line, want := range map[string]int{
		"CONNECT evil.example:443 HTTP/1.1": 405, "TRACE /task HTTP/1.1": 405, "BREW /task HTTP/1.1": 405,
		"GET /socket.io/?EIO=4&transport=polling HTTP/1.1": 404, "GET /Socket.IO HTTP/1.1": 404,
	} {
		if r := f.raw(line); r.Status != want {
			t.Errorf("%s: status %d %s, want %d", line, r.Status, r.Body, want)
		}
	}
	if r := f.raw("GET /task HTTP/1.1", "Upgrade: websocket"); r.Status != 400 {
		t.Errorf("Upgrade: status %d", r.Status)
	}
}

func FuzzSafePathMeansTheSameToEverybody(f *testing.F) {
	for _, s := range []string{"/", "/task", "/task/1/status", "/task/", "/a/../b", "//", "", "/.", "/...", "/a%2fb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if !safePath(p) {
			return
		}
		if p[0] != '/' || strings.Contains(p, "//") || strings.ContainsAny(p, "%\\?#;: \r\n\x00@") {
			t.Fatalf("accepts %q", p)
		}
		for _, s := range strings.Split(p, "/") {
			if s == "." || s == ".." {
				t.Fatalf("accepts %q", p)
			}
		}
	})
}

func TestMoreRequestsThanAllowedWaitAndAreThenRefused(t *testing.T) {
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
	}, withLimits(func(l *limits) { l.concurrent, l.queue = 2, 20*time.Millisecond }))
	done := make(chan int, 2)
	for range 2 {
		go func() { done <- f.do("GET", "/run/1", "").Status }()
	}
	<-arrived
	<-arrived
	r := f.do("GET", "/run/2", "")
	close(release)
	if r.Status != 503 || r.Header.Get("Retry-After") == "" {
		t.Errorf("third request: %+v", r)
	}
	for range 2 {
		if s := <-done; s != 200 {
			t.Errorf("status %d", s)
		}
	}
	if r := f.do("GET", "/run/2", ""); r.Status != 200 {
		t.Errorf("afterwards: %+v", r)
	}
}

func TestBodiesHaveALimit(t *testing.T) {
	f := newFixture(t, mustNotBeAsked(t), encrypted, withLimits(func(l *limits) { l.taskBody, l.otherBody = 1000, 100 }))
	for _, c := range []struct{ method, path string }{{"POST", "/task"}, {"POST", "/port"}, {"GET", "/organization"}} {
		body := `{"name":"` + strings.Repeat("x", 2000) + `"}`
		if r := f.do(c.method, c.path, body); r.Status != 413 {
			t.Errorf("%s %s: %+v", c.method, c.path, r)
		}
		// Without a length the excess shows on the way.
		req, err := http.NewRequest(c.method, f.proxy.URL+c.path, struct{ io.Reader }{strings.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := f.proxy.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 413 {
			t.Errorf("%s %s without length: status %d", c.method, c.path, resp.StatusCode)
		}
	}
}

func TestAnAlgorithmThatStopsSendingIsCutOff(t *testing.T) {
	f := newFixture(t, mustNotBeAsked(t), withLimits(func(l *limits) { l.readStall = 20 * time.Millisecond }))
	if r := f.raw("POST /task HTTP/1.1", "Content-Length: 1000"); r.Status != 400 {
		t.Fatalf("%+v", r)
	}
}
