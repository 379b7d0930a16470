package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRequestAndAnswerArePassedOn(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Vantage6", "yes")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "no")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		answerJSON(w, 418, map[string]string{"msg": "teapot"})
	})
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		r := f.do(method, "/organization?collaboration_id=1&page=1", `{"a":1}`, "Content-Type: application/json",
			"X-Forwarded-For: 1.2.3.4", "X-Http-Method-Override: DELETE", "Cookie: a=b", "Accept-Language: nl", "Connection: Accept-Language-Not")
		if r.Status != 418 || r.msg() != "teapot" || r.Header.Get("X-Vantage6") != "yes" {
			t.Errorf("%s: %+v", method, r)
		}
		for _, name := range []string{"Keep-Alive", "X-Hop", "Alt-Svc"} {
			if r.Header.Get(name) != "" {
				t.Errorf("%s: header %s passed", method, name)
			}
		}
		got := f.requests()[len(f.requests())-1]
		if got.Method != method || got.URI != "/api/organization?collaboration_id=1&page=1" || got.Body != `{"a":1}` || got.Auth != "Bearer "+token {
			t.Errorf("%s: the server saw %+v", method, got)
		}
		if got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Accept-Language") != "nl" {
			t.Errorf("%s: headers are missing: %v", method, got.Header)
		}
		for _, name := range []string{"X-Forwarded-For", "X-Http-Method-Override", "Cookie", "Connection"} {
			if got.Header.Get(name) != "" {
				t.Errorf("%s: the server saw header %s", method, name)
			}
		}
	}
	if r := f.do("HEAD", "/organization", ""); r.Status != 418 || r.Body != "" {
		t.Errorf("HEAD: %+v", r)
	}
	for _, want := range []string{"run=5", "method=PATCH", "path=/organization", "status=418", "bytes=", "duration="} {
		if !strings.Contains(f.logs.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, f.logs)
		}
	}
}

func TestABodyWithoutLengthReachesTheServerWithOne(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {})
	req, err := http.NewRequest("PATCH", f.proxy.URL+"/run/1", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 500_000))})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := f.proxy.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := f.requests(); len(got) != 1 || got[0].Length != 500_000 || len(got[0].Body) != 500_000 {
		t.Fatalf("the server saw %d requests, length %d", len(got), got[0].Length)
	}
}

func TestSafeRequestsAreRepeatedAndOthersAreNot(t *testing.T) {
	var n atomic.Int32
	fail := func(times int32, how http.HandlerFunc) http.HandlerFunc {
		n.Store(0)
		return func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) <= times {
				how(w, r)
				return
			}
			answerJSON(w, 200, map[string]string{"ok": "yes"})
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "0")
			answerJSON(w, code, map[string]string{"msg": "busy"})
		}
	}
	drop := func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		name, method, body string
		handler            http.HandlerFunc
		times              int32
		want               int
		asked              int32
	}{
		{"GET after 503", "GET", "", status(503), 2, 200, 3},
		{"GET after 502", "GET", "", status(502), 1, 200, 2},
		{"GET with body after 504", "GET", "{}", status(504), 1, 200, 2},
		{"HEAD after a lost connection", "HEAD", "", drop, 2, 200, 3},
		{"GET after a lost connection", "GET", "", drop, 3, 200, 4},
		{"GET that is never answered", "GET", "", drop, 100, 502, 4},
		{"GET that is always refused", "GET", "", status(503), 100, 503, 4},
		{"GET after 500", "GET", "", status(500), 1, 500, 1},
		{"GET after 404", "GET", "", status(404), 1, 404, 1},
		{"GET after 429", "GET", "", status(429), 1, 429, 1},
		{"POST after 503", "POST", "{}", status(503), 1, 503, 1},
		{"POST after a lost connection", "POST", "{}", drop, 1, 502, 1},
		{"POST without body after a lost connection", "POST", "", drop, 1, 502, 1},
		{"DELETE after 502", "DELETE", "", status(502), 1, 502, 1},
		{"PATCH after a lost connection", "PATCH", "{}", drop, 1, 502, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, fail(c.times, c.handler))
			r := f.do(c.method, "/port", c.body)
			if r.Status != c.want || n.Load() != c.asked {
				t.Errorf("status %d after %d requests, want %d after %d: %s", r.Status, n.Load(), c.want, c.asked, r.Body)
			}
		})
	}
}

func TestALongRetryAfterIsPassedOn(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	})
	if r := f.do("GET", "/run/1", ""); r.Status != 503 || r.Header.Get("Retry-After") != "3600" || len(f.requests()) != 1 {
		t.Fatalf("%+v after %d requests", r, len(f.requests()))
	}
}

func TestRetryAfterIsRespected(t *testing.T) {
	var times []time.Time
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		times = append(times, time.Now())
		if len(times) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		}
	})
	if r := f.do("GET", "/run/1", ""); r.Status != 200 || len(times) != 2 || times[1].Sub(times[0]) < time.Second {
		t.Fatalf("%+v, asked at %v", r, times)
	}
}

type flaky struct {
	http.RoundTripper
	failures atomic.Int32
	err      error
}

func (f *flaky) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, f.err
	}
	return f.RoundTripper.RoundTrip(r)
}

func TestAnUnsafeRequestIsRepeatedOnlyWhenNoConnectionCameAbout(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"dial":  {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, 200},
		"write": {&net.OpError{Op: "write", Err: errors.New("broken pipe")}, 502},
	} {
		f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {}, func(cfg *Config, _ *limits) {
			rt := &flaky{RoundTripper: cfg.Upstream.HTTP.Transport, err: c.err}
			rt.failures.Store(1)
			cfg.Upstream.HTTP.Transport = rt
		})
		if r := f.do("POST", "/port", `{"port":1}`); r.Status != c.want {
			t.Errorf("%s: %+v", name, r)
		}
		if got := f.requests(); c.want == 200 && (len(got) != 1 || got[0].Body != `{"port":1}`) {
			t.Errorf("%s: the server saw %+v", name, got)
		}
	}
}

func TestNoRedirectIsFollowedAndNoAddressGivenAway(t *testing.T) {
	elsewhere := func(w http.ResponseWriter, r *http.Request) {}
	for _, c := range []struct {
		code             int
		location         string
		status           int
		algorithmsNextGo string
	}{
		{308, "SERVER/api/task/?a=b", 308, "/task/?a=b"},
		{302, "/api/run/7", 302, "/run/7"},
		{302, "7", 302, "/run/7"},
		{302, "SERVER/admin", 502, ""},
		{302, "SERVER/apix/run", 502, ""},
		{302, "/api/../admin", 502, ""},
		{307, "http://evil.example/api/run/1", 502, ""},
		{301, "//evil.example/api/run/1", 502, ""},
		{201, "http://internal.example:5000/api/task/4", 201, ""},
		{201, "SERVER/api/task/4", 201, "/task/4"},
	} {
		var f *fixture
		f = newFixture(t, func(w http.ResponseWriter, r *http.Request) {
			elsewhere(w, r)
			w.Header().Set("Location", strings.ReplaceAll(c.location, "SERVER", f.server.URL))
			w.Header().Set("Content-Location", f.server.URL)
			w.WriteHeader(c.code)
		})
		r := f.do("GET", "/run/1", "")
		if r.Status != c.status || r.Header.Get("Location") != c.algorithmsNextGo || r.Header.Get("Content-Location") != "" {
			t.Errorf("%d %s: %+v", c.code, c.location, r)
		}
		if len(f.requests()) != 1 {
			t.Errorf("%d %s: %d requests", c.code, c.location, len(f.requests()))
		}
	}
}

func TestHalfAnAnswerIsNeverTakenForAWholeOne(t *testing.T) {
	for _, size := range []int{100, 1 << 20} {
		f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(2*size))
			_, _ = w.Write(make([]byte, size))
			panic(http.ErrAbortHandler)
		})
		req, err := http.NewRequest("GET", f.proxy.URL+"/run/1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := f.proxy.Client().Do(req)
		if err != nil {
			continue
		}
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == 200 {
			t.Errorf("%d of %d bytes pass as an answer", size, 2*size)
		}
	}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/run/2" {
			_, _ = w.Write([]byte("{"))
			w.(http.Flusher).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}, withLimits(func(l *limits) {
		l.headerWait, l.bodyStall, l.slowWait = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	}))
	for _, c := range []struct{ method, path, body string }{{"GET", "/run/1", ""}, {"GET", "/run/2", ""}, {"POST", "/port", "{}"}} {
		if r := f.do(c.method, c.path, c.body); r.Status != 502 {
			t.Errorf("%s %s: %+v", c.method, c.path, r)
		}
	}
}
