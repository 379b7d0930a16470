package admin

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
)

// nothing is a station that is never reached by what it must not be.
type nothing struct{ Station }

func (nothing) Update(_ context.Context, run int64, c LimitChange) (*Limits, error) {
	if run <= 0 || c.Empty() {
		panic("an update of nothing")
	}
	return &Limits{}, nil
}

func (nothing) Kill(_ context.Context, run int64) error {
	if run <= 0 {
		panic("the kill of no run")
	}
	return nil
}

func (nothing) Runs(context.Context, RunQuery, func(*Run) error) error { return nil }

func (nothing) Logs(_ context.Context, run int64, o LogOptions, _ func(*LogLine) error) error {
	if run <= 0 || (o.Tail != nil && *o.Tail < 0) {
		panic("the log of nothing")
	}
	return nil
}

func FuzzRequests(f *testing.F) {
	f.Add("GET", "/v1/runs", "all=true", "")
	f.Add("GET", "/v1/runs/103/logs", "follow=1&since=2026-01-01T00:00:00Z&tail=5", "")
	f.Add("POST", "/v1/runs/103/kill", "", "")
	f.Add("PATCH", "/v1/runs/103/limits", "", `{"memory":67108864,"cpus":0.5}`)
	f.Add("PATCH", "/v1/runs/9223372036854775808/limits", "", `{"memory":1e400}`)
	s := NewServer(ServerOptions{Station: nothing{}, Version: "1", Log: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		for _, known := range []string{"/v1/runs", "/logs", "/kill", "/limits"} {
			if strings.HasSuffix(path, known) {
				r := httptest.NewRequest(http.MethodGet, "http://v6node/", strings.NewReader(body))
				r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
				r.Header.Set(headerProtocol, strconv.Itoa(Protocol))
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r.WithContext(context.WithValue(t.Context(), peerKey{}, Peer{UID: os.Geteuid()})))
				if w.Code == 0 {
					t.Error("no answer")
				}
				return
			}
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("{\"item\":{\"id\":5}}\n{\"end\":true}\n"))
	f.Add([]byte("{\"error\":{\"kind\":\"state\",\"message\":\"m\"}}\n"))
	f.Add([]byte("null\n{\"item\":null}\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		c := NewClient("/nowhere")
		c.http = &http.Client{Transport: transport(func(*http.Request) *http.Response {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{headerProtocol: {strconv.Itoa(Protocol)}}, Body: io.NopCloser(strings.NewReader(string(body)))}
		})}
		items := 0
		err := c.Runs(t.Context(), RunQuery{}, func(r *Run) error {
			if items++; r == nil {
				t.Error("an item that is none")
			}
			return nil
		})
		if err == nil && !strings.Contains(string(body), "end") && !strings.Contains(strings.ToLower(string(body)), "end") {
			t.Errorf("%q has no end and was taken for whole", body)
		}
	})
}

type transport func(*http.Request) *http.Response

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r), nil }
