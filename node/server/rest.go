package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	smallAnswer = 4 << 20  // answers that carry no input or result
	errorAnswer = 64 << 10 // what is read of an error page
)

// call is one REST request.
type call struct {
	method string
	path   string // below the API's base
	query  url.Values
	accept string // content type to send without a body; "" for none
	body   *body
	bytes  bool // the answer is bytes, not JSON
	large  bool // an answer or body of any length: no limit on the whole time, only on standstill
	out    func(io.Reader) error
	header func(http.Header) // is shown the answer's header, whatever its status
}

// body is a request body that can be sent more than once.
type body struct {
	size int64  // -1 when it is not known: the body is sent in chunks
	kind string // content type; "" is JSON
	open func() (io.ReadCloser, error)
}

func jsonBody(v any) (*body, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &body{size: int64(len(b)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}, nil
}

// into decodes a small answer.
func into(v any) func(io.Reader) error {
	return func(r io.Reader) error { return json.NewDecoder(&capped{r: r, left: smallAnswer}).Decode(v) }
}

// do makes a call in the node's name, and once more with a new token if the first was refused.
func (v *V4) do(ctx context.Context, c call) error {
	t, err := v.tokens.get(ctx, "", false)
	if err != nil {
		return err
	}
	err = v.attempt(ctx, c, t.access)
	if !tokenRefused(err) {
		return err
	}
	t, terr := v.tokens.get(ctx, t.access, false)
	if terr != nil {
		return terr
	}
	return v.attempt(ctx, c, t.access)
}

// tokenRefused tells whether an answer may be about the token: 401, or 422 for one that the
// server cannot verify (after a change of its secret, say).
func tokenRefused(err error) bool {
	var se *StatusError
	return errors.As(err, &se) && (se.Code == http.StatusUnauthorized || se.Code == http.StatusUnprocessableEntity)
}

var (
	errStalled = errors.New("no progress of the request")
	// errNotObject: the answer is no JSON object.
	errNotObject = errors.New("the answer is no JSON object")
	errSlow      = errors.New("the request took too long")
)

// attempt makes a call once, with bearer as the token or none.
func (v *V4) attempt(parent context.Context, c call, bearer string) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	if !c.large {
		slow := time.AfterFunc(v.timing.Call, func() { cancel(errSlow) })
		defer slow.Stop()
	}
	stall := time.AfterFunc(v.timing.Stall, func() { cancel(errStalled) })
	defer stall.Stop()
	progress := func() { stall.Reset(v.timing.Stall) }

	sent := func() {}
	if c.body != nil && c.body.kind == bytesType {
		sent = func() { stall.Reset(v.timing.Store) }
	}
	req, err := v.request(ctx, c, bearer, progress, sent)
	if err != nil {
		return err
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return v.failed(parent, ctx, req, err)
	}
	defer resp.Body.Close()
	progress()
	if c.header != nil {
		c.header(resp.Header)
	}
	answer := &watched{r: resp.Body, progress: progress}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return statusError(req, resp, answer, v.now())
	}
	if c.bytes && !isBytes(resp.Header) {
		return fmt.Errorf("%w: at %s: %w: %s %s was answered with %.100q", ErrUnreachable, v.base, ErrNotAPI, req.Method, req.URL.Path, resp.Header.Get("Content-Type"))
	}
	if c.out != nil {
		if err := c.out(answer); err != nil {
			var syntax *json.SyntaxError
			var local *sourceError
			switch {
			case answer.err != nil:
				return v.failed(parent, ctx, req, answer.err)
			case errors.As(err, &local):
				return local.err
			case errors.As(err, &syntax), errors.Is(err, errNotObject), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
				return fmt.Errorf("%w: at %s: %w: check server_url, port and api_path: %w", ErrUnreachable, v.base, ErrNotAPI, err)
			}
			return fmt.Errorf("the answer to %s %s is not understood: %w", c.method, req.URL.Path, err)
		}
	}
	// A connection is only reused when its answer was read to the end.
	_, _ = io.CopyN(io.Discard, answer, errorAnswer)
	return nil
}

// request makes the HTTP request of a call; sent is called when the body is out.
func (v *V4) request(ctx context.Context, c call, bearer string, progress, sent func()) (*http.Request, error) {
	u := *v.base
	u.Path += c.path
	u.RawQuery = c.query.Encode()
	req, err := http.NewRequestWithContext(ctx, c.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if c.body != nil {
		open := func() (io.ReadCloser, error) {
			r, err := c.body.open()
			if err != nil {
				return nil, err
			}
			return &watched{r: r, progress: progress, end: sent}, nil
		}
		if req.Body, err = open(); err != nil {
			return nil, err
		}
		req.GetBody = open
		req.ContentLength = c.body.size
		req.Header.Set("Content-Type", cmp.Or(c.body.kind, "application/json"))
	} else if c.accept != "" {
		req.Header.Set("Content-Type", c.accept)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	req.Header.Set("User-Agent", v.agent)
	req.Header.Set("Accept", "application/json")
	// Every call may be repeated: that lets the transport replace, without a word, an idle
	// connection that the server has closed in the meantime. With no value nothing is sent.
	req.Header["Idempotency-Key"] = []string{}
	return req, nil
}

// failed turns an error without an answer into one of the documented kinds.
func (v *V4) failed(parent, ctx context.Context, req *http.Request, err error) error {
	var local *sourceError
	if errors.As(err, &local) {
		return local.err
	}
	if cause := context.Cause(ctx); cause != nil && parent.Err() == nil {
		err = fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, cause)
	}
	return unreachable(parent, req.URL.Host, err)
}

func statusError(req *http.Request, resp *http.Response, answer io.Reader, now time.Time) error {
	e := &StatusError{Code: resp.StatusCode, Method: req.Method, Path: req.URL.Path, RetryAfter: retryAfter(resp.Header, now)}
	b, _ := io.ReadAll(io.LimitReader(answer, errorAnswer)) // what can be read of it is enough
	var m struct {
		Msg     string `json:"msg"`
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &m) == nil {
		e.Msg, e.Own = m.Msg, m.Msg != ""
		if e.Msg == "" {
			e.Msg = m.Message
		}
	}
	if loc := resp.Header.Get("Location"); loc != "" && resp.StatusCode < 400 {
		e.Msg = fmt.Sprintf("redirected to %.200s: use that address in server_url", loc)
	}
	if len(e.Msg) > 1000 {
		e.Msg = e.Msg[:1000]
	}
	return e
}

// isObject fails with ErrNotAPI where an answer is no JSON object, as a gateway's
// page is. It reads no more than it takes to know: the answer may be as long as a
// result.
func isObject(r io.Reader) error {
	var one [1]byte
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return err
		}
		switch one[0] {
		case ' ', '\t', '\r', '\n':
		case '{':
			return nil
		default:
			return errNotObject
		}
	}
}

// watched reports progress and keeps the error with which reading ended.
type watched struct {
	r        io.Reader
	progress func()
	end      func() // is told of a good end; may be nil
	err      error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.progress()
	}
	if err != nil && err != io.EOF {
		w.err = err
	}
	if err == io.EOF && w.end != nil {
		w.end()
	}
	return n, err
}

func (w *watched) Close() error {
	if c, ok := w.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// capped fails with ErrTooLarge where io.LimitedReader would pretend the end.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, ErrTooLarge
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	return n, err
}
