package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/proxy/forward"
)

// limits bound what one run may ask for (docs/connections.md).
type limits struct {
	header   time.Duration // for the algorithm's request line and headers
	idle     time.Duration // of a connection without a request
	connect  time.Duration // to resolve and to connect
	response time.Duration // for the server's answer to begin
	silence  time.Duration // of both ends of a tunnel, or of a body
	bytes    int           // of headers
}

func defaultLimits() limits {
	return limits{header: 10 * time.Second, idle: 2 * time.Minute, connect: 30 * time.Second, response: 10 * time.Minute, silence: 15 * time.Minute, bytes: 64 << 10}
}

// Config is what a Proxy needs. All fields but Meter are required.
type Config struct {
	List *List
	// Gate is that of the run.
	Gate *forward.Gate
	// Log knows the run.
	Log *slog.Logger
	// Meter returns what counts the requests to a listed host and port, and for "" what counts
	// requests that go nowhere. It is called for each request; nil counts nothing.
	Meter func(target string) *forward.Meter
}

// Proxy is the HTTP proxy of one run.
type Proxy struct {
	list    *List
	gate    *forward.Gate
	log     *slog.Logger
	meter   func(target string) *forward.Meter
	lim     limits
	resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	connect func(ctx context.Context, network, address string) (net.Conn, error)
	plain   *httputil.ReverseProxy
	rt      *http.Transport
	open    sync.WaitGroup // connections, also those taken from the server
}

// New returns the proxy of a run. It starts nothing.
func New(c Config) *Proxy { return newProxy(c, defaultLimits()) }

func newProxy(c Config, lim limits) *Proxy {
	p := &Proxy{list: c.List, gate: c.Gate, log: c.Log, meter: c.Meter, lim: lim, connect: new(net.Dialer).DialContext}
	if p.meter == nil {
		p.meter = func(string) *forward.Meter { return nil }
	}
	p.resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}
	p.rt = &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			at, err := hostport.Parse(address)
			if err != nil {
				return nil, err
			}
			return p.dial(ctx, at)
		},
		ResponseHeaderTimeout: lim.response, MaxResponseHeaderBytes: int64(lim.bytes), IdleConnTimeout: lim.idle,
		DisableCompression: true, MaxIdleConns: 16, MaxIdleConnsPerHost: 4,
	}
	p.plain = &httputil.ReverseProxy{
		// The request goes on as it came, to the host that was checked.
		Rewrite:      func(r *httputil.ProxyRequest) { r.Out.Host = r.Out.URL.Host },
		Transport:    p.rt,
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { fail(w, err) },
	}
	return p
}

// Serve serves what l accepts until ctx ends, cuts off what is under way then,
// and returns nil when the last connection is closed. Other errors are those of
// the listener, which is closed in any case.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	serving, end := context.WithCancel(ctx)
	srv := &http.Server{
		Handler: p, ReadHeaderTimeout: p.lim.header, IdleTimeout: p.lim.idle, MaxHeaderBytes: p.lim.bytes,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return serving },
		ConnState:                    p.count,
		// What the standard library would log there is the algorithm's doing.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	stop := context.AfterFunc(serving, func() { srv.Close() })
	defer stop()
	err := srv.Serve(p.gate.Listener(serving, l))
	end()
	srv.Close()
	p.open.Wait()
	p.rt.CloseIdleConnections()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("accept requests to the whitelist's proxy: %w", err)
}

// count counts the connections of the server.
func (p *Proxy) count(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		p.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		p.open.Done()
	}
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.open.Add(1) // of a tunnel's connection the server loses sight
	defer p.open.Done()
	// Each request is a line in the log and perhaps a question to a name server,
	// however many come over one connection.
	if p.gate.Pace(r.Context()) != nil {
		return // the run has ended
	}
	e := &exchange{p: p, r: r, began: time.Now(), meter: p.meter("")}
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v != http.ErrAbortHandler {
			p.log.ErrorContext(r.Context(), "a request to the whitelist's proxy failed by a defect: report it", "target", e.target, "panic", v, "stack", string(debug.Stack()))
		}
		panic(http.ErrAbortHandler) // the connection is cut
	}()
	if r.Method == http.MethodConnect {
		e.tunnel(w)
	} else {
		e.forward(w)
	}
	e.tell()
}

// exchange is one request.
type exchange struct {
	p              *Proxy
	r              *http.Request
	began          time.Time
	target         string
	meter          *forward.Meter
	status         int
	err            error
	sent, received atomic.Int64 // by the algorithm
}

// tell writes the request down: never its path, query, headers or body.
func (e *exchange) tell() {
	attrs := []any{"method", method(e.r), "target", e.target, "decision", decision(e.err), "status", e.status, "sent", e.sent.Load(), "received", e.received.Load(),
		"took", time.Since(e.began).Round(time.Millisecond)}
	if e.err != nil {
		e.p.log.WarnContext(e.r.Context(), "a request of the algorithm to the whitelist's proxy failed", append(attrs, "error", e.err)...)
		return
	}
	e.p.log.InfoContext(e.r.Context(), "a request of the algorithm through the whitelist's proxy", attrs...)
}

// method is the request's for the log, where no invented word can stand.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodConnect, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace:
		return r.Method
	}
	return "other"
}

// decision is what the whitelist says of a request that ended with err. Of one that no proxy understands it says no.
func decision(err error) string {
	var bad badRequest
	if errors.Is(err, ErrRefused) || errors.As(err, &bad) {
		return "refused"
	}
	return "allowed"
}

// refuse answers a request that goes nowhere.
func (e *exchange) refuse(w http.ResponseWriter, err error) {
	e.err = err
	e.meter.Fail()
	e.status = fail(w, err)
}

// badRequest is a request that no proxy understands.
type badRequest struct{ why string }

func (b badRequest) Error() string { return b.why }

// fail answers with what the algorithm may know of an error; the log has all.
func fail(w http.ResponseWriter, err error) int {
	status, text := http.StatusBadGateway, "the host cannot be reached; the node's log says why"
	var bad badRequest
	var inside *insideError
	switch {
	case errors.As(err, &bad):
		status, text = http.StatusBadRequest, bad.why
	case errors.As(err, &inside):
		status, text = http.StatusForbidden, inside.told()
	case errors.Is(err, ErrRefused):
		status, text = http.StatusForbidden, err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		status, text = http.StatusGatewayTimeout, "the host did not answer in time"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintf(w, "v6node: %s\n", text)
	return status
}

// aim finds where a request wants to go, and whether it may.
func (e *exchange) aim(text, defaultPort string) (hostport.Pair, error) {
	if defaultPort != "" && !hasPort(text) {
		text += ":" + defaultPort
	}
	at, err := hostport.Parse(text)
	if err != nil {
		return at, badRequest{fmt.Sprintf("the target of the request cannot be used: %v", err)}
	}
	e.target = at.String()
	if err := e.p.list.Allows(at); err != nil {
		return at, err // the algorithm may invent any number of such hosts: they count as one
	}
	e.meter = e.p.meter(e.target)
	return at, nil
}

func hasPort(host string) bool {
	for i := len(host) - 1; i >= 0; i-- {
		switch host[i] {
		case ':':
			return true
		case ']':
			return false
		}
	}
	return false
}

// dial connects to a host that Allows has passed. Every address that its name
// has is looked at before one is tried.
func (p *Proxy) dial(ctx context.Context, at hostport.Pair) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.lim.connect)
	defer cancel()
	if a, ok := at.Address(); ok {
		return p.connect(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(at.Port)))
	}
	addresses, err := p.resolve(ctx, at.Host)
	if err != nil {
		return nil, fmt.Errorf("the name %s cannot be resolved: %w", at.Host, err)
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("the name %s has no address", at.Host)
	}
	for _, a := range addresses {
		if err := p.list.Leads(at, a); err != nil {
			return nil, err
		}
	}
	var last error
	for i, a := range addresses {
		// Each gets its share of the time that is left, as with net.Dialer.
		deadline, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addresses)-i))
		c, err := p.connect(share, "tcp", net.JoinHostPort(a.Unmap().String(), strconv.Itoa(at.Port)))
		cancel()
		if err == nil {
			return c, nil
		}
		last = err
	}
	return nil, last
}

// forward passes on a plain HTTP request.
func (e *exchange) forward(w http.ResponseWriter) {
	r := e.r
	switch {
	case r.URL.Host == "":
		e.refuse(w, badRequest{"this is an HTTP proxy, and the request names no host; set HTTP_PROXY and HTTPS_PROXY to its address"})
		return
	case r.URL.Scheme != "http":
		e.refuse(w, badRequest{"only http:// is passed on like this; use CONNECT for https://"})
		return
	case r.URL.User != nil:
		e.refuse(w, badRequest{"a user and a password do not belong into the address; use a header"})
		return
	case r.Header.Get("Upgrade") != "":
		e.refuse(w, badRequest{"the protocol cannot be changed over plain HTTP; use CONNECT"})
		return
	}
	at, err := e.aim(r.URL.Host, "80")
	if err != nil {
		e.refuse(w, err)
		return
	}
	out := r.Clone(r.Context())
	out.URL.Host = at.String()
	if at.Port == 80 {
		out.URL.Host = hostOnly(at)
	}
	control := http.NewResponseController(w)
	alive := func() {
		// The deadlines move with each byte; a connection that cannot have any
		// is one of a test.
		_ = control.SetReadDeadline(time.Now().Add(e.p.lim.silence))
		_ = control.SetWriteDeadline(time.Now().Add(e.p.lim.silence))
	}
	alive()
	sent := func(n int64) { e.sent.Add(n); e.meter.Sent(n) }
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = &countedBody{ReadCloser: out.Body, count: sent, alive: alive}
	}
	received := func(n int64) {
		if e.err == nil { // else it is what the proxy says of it
			e.received.Add(n)
			e.meter.Received(n)
		}
	}
	answer := &countedAnswer{ResponseWriter: w, count: received, alive: alive}
	// It goes through once it has a connection; a broken one may be replaced by another.
	made, end := false, func() {}
	defer func() { end() }()
	out = out.WithContext(httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if !made {
			made, end = true, e.meter.Begin()
			sent(forward.Head(r))
		}
	}}))
	defer func() {
		e.status = answer.status
		// The reverse proxy breaks off an answer in this way, which is told and
		// then goes on its way to the server.
		if v := recover(); v != nil {
			e.err = errors.New("the answer broke off")
			e.tell()
			panic(v)
		}
	}()
	plain := *e.p.plain
	plain.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		if !made {
			e.meter.Fail()
		}
		e.err = err
		fail(w, err)
	}
	plain.ServeHTTP(answer, out)
}

// hostOnly is the host as a URL has it.
func hostOnly(at hostport.Pair) string {
	if a, ok := at.Address(); ok && a.Is6() {
		return "[" + at.Host + "]"
	}
	return at.Host
}

type countedBody struct {
	io.ReadCloser
	count func(int64)
	alive func()
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(int64(n))
	if n > 0 {
		b.alive()
	}
	return n, err
}

type countedAnswer struct {
	http.ResponseWriter
	count  func(int64)
	alive  func()
	status int
}

func (a *countedAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *countedAnswer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.count(int64(n))
	a.alive()
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *countedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// tunnel serves CONNECT.
func (e *exchange) tunnel(w http.ResponseWriter) {
	at, err := e.aim(e.r.Host, "")
	if err != nil {
		e.refuse(w, err)
		return
	}
	ctx := e.r.Context()
	outer, err := e.p.dial(ctx, at)
	if err != nil {
		e.refuse(w, err)
		return
	}
	inner, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		outer.Close()
		e.refuse(w, fmt.Errorf("the connection cannot become a tunnel: %w", err))
		return
	}
	e.status = http.StatusOK
	// The request's own context does not end with a connection that was taken
	// from the server; the listener's does.
	ctx, end := context.WithCancel(ctx)
	defer end()
	silent := time.AfterFunc(e.p.lim.silence, end)
	defer silent.Stop()
	alive := func() { silent.Reset(e.p.lim.silence) }
	if err := inner.SetDeadline(time.Time{}); err == nil {
		_, err = io.WriteString(inner, "HTTP/1.1 200 Connection established\r\n\r\n")
	}
	if err != nil {
		inner.Close()
		outer.Close()
		e.err = fmt.Errorf("the algorithm has gone: %w", err)
		return
	}
	// From the server's reader only what it has: it ends the context with the algorithm's last byte, and the answer with it.
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	sent, received := forward.Relay(ctx, &watched{Conn: inner, early: early, alive: alive}, &watched{Conn: outer, alive: alive}, e.meter)
	e.sent.Store(sent)
	e.received.Store(received)
}

// watched is one end of a tunnel: it tells when a byte passes, and first reads
// what the server had read already.
type watched struct {
	net.Conn
	early []byte
	alive func()
}

func (c *watched) Read(p []byte) (n int, err error) {
	if len(c.early) > 0 {
		n = copy(p, c.early)
		c.early = c.early[n:]
	} else {
		n, err = c.Conn.Read(p)
	}
	if n > 0 {
		c.alive()
	}
	return n, err
}

func (c *watched) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("the connection has no directions")
	}
	return half.CloseWrite()
}
