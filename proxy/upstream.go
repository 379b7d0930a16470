package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/v6node/v6node/internal/backoff"
)

// call is a request to the vantage6 server.
type call struct {
	method, path, query string
	header              http.Header // may be nil
	// body, when not nil, returns the body from its beginning each time
	// (replay), or can be called once only.
	body   func() io.Reader
	length int64 // of the body, -1 when unknown
	replay bool
	// once forbids to repeat even a safe request.
	once bool
}

// ask sends a call with the run's token and returns the server's response,
// whose body the caller closes. Redirects are not followed. GET and HEAD are
// repeated when the server cannot be reached or answers 502, 503 or 504; other
// methods only while no connection came about, so that nothing can have been
// sent. The error is errGone when ctx has ended.
func (a *API) ask(ctx context.Context, c call) (*http.Response, error) {
	safe := c.method == http.MethodGet || c.method == http.MethodHead
	wait := backoff.New(a.lim.retry)
	for attempt := 1; ; attempt++ {
		resp, err := a.once(ctx, c, safe)
		if ctx.Err() != nil {
			if err == nil {
				resp.Body.Close()
			}
			return nil, errGone
		}
		if attempt == a.lim.attempts || c.once || !c.repeatable() {
			return resp, err
		}
		pause := wait.Next()
		switch {
		case err != nil:
			if !safe && !notSent(err) {
				return nil, err
			}
		case safe && (resp.StatusCode == 502 || resp.StatusCode == 503 || resp.StatusCode == 504):
			after := retryAfter(resp.Header)
			if after > a.lim.maxRetryWait {
				return resp, nil
			}
			pause = max(pause, after)
			resp.Body.Close()
		default:
			return resp, nil
		}
		a.log.DebugContext(ctx, "repeating a request to the server", "method", c.method, "path", short(c.path), "attempt", attempt, "pause", pause, "error", err)
		if backoff.Sleep(ctx, pause) != nil {
			return nil, errGone
		}
	}
}

func (c *call) repeatable() bool { return c.body == nil || c.replay }

// once sends a call one time.
func (a *API) once(ctx context.Context, c call, safe bool) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	u := *a.base
	u.Path += c.path
	u.RawQuery = c.query
	req := (&http.Request{
		Method: c.method, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{},
	}).WithContext(ctx)
	for name, values := range c.header {
		req.Header[name] = values
	}
	req.Header.Set("Authorization", "Bearer "+a.run.Token)
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "v6node")
	}
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}
	patience := a.lim.slowWait
	if safe {
		patience = a.lim.headerWait
	}
	watch := newWatch(patience, cancel)
	if c.body != nil && c.length != 0 {
		// The wait for an answer begins when the last byte was taken.
		req.Body = io.NopCloser(&watchedBody{c.body(), watch})
		req.ContentLength = c.length
	}
	resp, err := a.rt.RoundTrip(req)
	if !watch.stop() && err == nil {
		resp.Body.Close()
		err = errors.New("no answer in time")
	}
	if err != nil {
		cancel()
		return nil, &serverError{err}
	}
	if resp.StatusCode < 200 {
		resp.Body.Close()
		cancel()
		return nil, errOdd
	}
	resp.Body = &patient{ReadCloser: resp.Body, cancel: cancel, wait: a.lim.bodyStall}
	return resp, nil
}

// serverError is a failure to reach the server. The algorithm is told errServer.
type serverError struct{ err error }

func (e *serverError) Error() string   { return "ask the server: " + e.err.Error() }
func (e *serverError) Unwrap() []error { return []error{e.err, errServer} }

// notSent reports whether a failed request cannot have reached the server.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// retryAfter returns what the server asks for, 0 without.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// watch calls cancel when it is not touched for a while, until it is stopped.
type watch struct {
	wait  time.Duration
	mu    sync.Mutex
	timer *time.Timer
	off   bool
}

func newWatch(wait time.Duration, cancel context.CancelFunc) *watch {
	return &watch{wait: wait, timer: time.AfterFunc(wait, cancel)}
}

func (w *watch) touch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.off {
		w.timer.Reset(w.wait)
	}
}

// stop reports whether it was in time.
func (w *watch) stop() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off = true
	return w.timer.Stop()
}

// watchedBody touches the watch at each read.
type watchedBody struct {
	r     io.Reader
	watch *watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.watch.touch()
	return n, err
}

// patient is a response body that gives up when the server is silent within
// it. Its read errors are the server's fault.
type patient struct {
	io.ReadCloser
	cancel context.CancelFunc
	wait   time.Duration
	watch  *time.Timer
}

func (p *patient) Read(b []byte) (int, error) {
	if p.watch == nil {
		p.watch = time.AfterFunc(p.wait, p.cancel)
	} else {
		p.watch.Reset(p.wait)
	}
	n, err := p.ReadCloser.Read(b)
	p.watch.Stop()
	if err != nil && err != io.EOF {
		err = &serverError{err}
	}
	return n, err
}

func (p *patient) Close() error {
	defer p.cancel()
	return p.ReadCloser.Close()
}

// location returns where a redirect within the API leads, as the algorithm
// sees the API.
func (a *API) location(resp *http.Response) (string, bool) {
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return "", false
	}
	from := *a.base
	if resp.Request != nil {
		from = *resp.Request.URL
	}
	to = from.ResolveReference(to)
	path, ok := cutPath(to.Path, a.base.Path)
	if to.Hostname() != a.base.Hostname() || !ok || !safePath(path) {
		return "", false
	}
	return (&url.URL{Path: path, RawQuery: to.RawQuery}).String(), true
}

// cutPath takes the api path off.
func cutPath(path, base string) (string, bool) {
	if len(path) < len(base) || path[:len(base)] != base {
		return "", false
	}
	return path[len(base):], true
}
