package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// request is a request whose body was read. What is asked for and not used is
// an error: a node that does not know an option must not do something else.
type request struct {
	http *http.Request
	body []byte
	args url.Values
	used map[string]bool
	err  error // the first argument that could not be read
}

func readRequest(r *http.Request) (*request, error) {
	args, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Problemf(ErrInvalid, "the request's arguments cannot be read: %v", err)
	}
	body, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, Problemf(ErrInvalid, "the request is longer than %d bytes", large.Limit)
	}
	if err != nil {
		return nil, Problemf(ErrInvalid, "the request did not come in full: %v", err)
	}
	return &request{http: r, body: body, args: args, used: make(map[string]bool)}, nil
}

func (r *request) wrong(format string, args ...any) {
	if r.err == nil {
		r.err = Problemf(ErrInvalid, format, args...)
	}
}

// surplus returns what was wrong with the arguments or left unused.
func (r *request) surplus() error {
	for name := range r.args {
		if !r.used[name] {
			r.wrong("the node does not know the argument %q of %s %s", name, r.http.Method, r.http.URL.Path)
		}
	}
	return r.err
}

func (r *request) arg(name string) string {
	r.used[name] = true
	return r.args.Get(name)
}

func (r *request) flag(name string) bool {
	s := r.arg(name)
	if s == "" {
		return false
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		r.wrong("%s=%q is neither true nor false", name, s)
	}
	return b
}

func (r *request) time(name string) time.Time {
	s := r.arg(name)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		r.wrong("%s=%q is not a time", name, s)
	}
	return t
}

func (r *request) interval(name string) time.Duration {
	s := r.arg(name)
	d, err := time.ParseDuration(s)
	if err != nil || d < MinInterval || d > MaxInterval {
		r.wrong("%s=%q is not an interval from %v to %v", name, s, MinInterval, MaxInterval)
	}
	return d
}

func (r *request) count(name string) *int {
	s := r.arg(name)
	if s == "" {
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		r.wrong("%s=%q is not a number of lines", name, s)
	}
	return &n
}

func (r *request) ids(name string) []int64 {
	r.used[name] = true
	var out []int64
	for _, s := range r.args[name] {
		out = append(out, r.id(s))
	}
	return out
}

// run is the run in the path.
func (r *request) run() int64 { return r.id(r.http.PathValue("run")) }

func (r *request) id(s string) int64 {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 {
		r.wrong("%q is not the id of a run", s)
	}
	return id
}

// decode reads the body, which must be nothing but what to has fields for.
func (r *request) decode(to any) error {
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return Problemf(ErrInvalid, "the request cannot be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Problemf(ErrInvalid, "the request has something behind its end")
	}
	return nil
}
