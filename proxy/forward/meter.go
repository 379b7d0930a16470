package forward

import (
	"io"
	"net/http"
	"sync/atomic"
)

// Count is what one way out of a run has carried. Bytes are those of the connection. Of HTTP, those sent are first
// lines, headers and bodies of requests, for data can stand in all of them, and those received are bodies.
type Count struct {
	Connections int64 `json:"connections"`      // or requests, that went through
	Failed      int64 `json:"failed,omitempty"` // or were refused
	Open        int64 `json:"open,omitempty"`
	Sent        int64 `json:"sent"`     // by the algorithm
	Received    int64 `json:"received"` // by the algorithm
}

// Meter counts while connections are open. It is safe for concurrent use; a nil Meter counts
// nothing.
type Meter struct{ connections, failed, open, sent, received atomic.Int64 }

// NewMeter makes a meter that goes on where an earlier one was.
func NewMeter(from Count) *Meter {
	m := new(Meter)
	m.connections.Store(from.Connections)
	m.failed.Store(from.Failed)
	m.sent.Store(from.Sent)
	m.received.Store(from.Received)
	return m
}

// Count is what was counted so far.
func (m *Meter) Count() Count {
	return Count{
		Connections: m.connections.Load(), Failed: m.failed.Load(), Open: m.open.Load(),
		Sent: m.sent.Load(), Received: m.received.Load(),
	}
}

// Begin counts a connection, which is open until the returned function is called.
func (m *Meter) Begin() (end func()) {
	if m == nil {
		return func() {}
	}
	m.connections.Add(1)
	m.open.Add(1)
	return func() { m.open.Add(-1) }
}

// Fail counts a connection that could not be made.
func (m *Meter) Fail() {
	if m != nil {
		m.failed.Add(1)
	}
}

// Sent counts bytes of the algorithm, and Received bytes for it.
func (m *Meter) Sent(n int64) {
	if m != nil {
		m.sent.Add(n)
	}
}

// Received is like Sent.
func (m *Meter) Received(n int64) {
	if m != nil {
		m.received.Add(n)
	}
}

// Head is how many bytes the first line and the headers of a request are that a server has got.
func Head(r *http.Request) int64 {
	n := len(r.Method+" "+r.RequestURI+" "+r.Proto+"\r\n") + len("Host: "+r.Host+"\r\n") + len("\r\n")
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name + ": " + v + "\r\n")
		}
	}
	return int64(n)
}

// Handler counts the requests to h, and the bytes of them and of the bodies of their answers.
func (m *Meter) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer m.Begin()()
		m.Sent(Head(r))
		if r.Body != nil && r.Body != http.NoBody {
			r = r.WithContext(r.Context()) // the server keeps its own
			r.Body = &meteredBody{r.Body, m}
		}
		h.ServeHTTP(&meteredAnswer{w, m}, r)
	})
}

type meteredBody struct {
	io.ReadCloser
	m *Meter
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.m.Sent(int64(n))
	return n, err
}

type meteredAnswer struct {
	http.ResponseWriter
	m *Meter
}

func (a *meteredAnswer) Write(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	a.m.Received(int64(n))
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *meteredAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
