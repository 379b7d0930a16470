package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// Defaults of ServerOptions.
const (
	defaultRequestTime = 10 * time.Second
	defaultCallTime    = time.Minute
	defaultStallTime   = 10 * time.Minute
	defaultRequests    = 64
	// endTime is how long streams get to say that the node stops.
	endTime = 2 * time.Second
)

// ServerOptions say what is served, and to how many. The Station, Version and
// Log are required, zero bounds mean the defaults.
type ServerOptions struct {
	Station Station
	Version string // of the node's program
	Log     *slog.Logger
	// Changed, if set, is told of each command that changes something, when it
	// was carried out or refused.
	Changed func(ctx context.Context, peer Peer, command string, what []any, err error)

	RequestTime time.Duration // to send a request in full, 10 s
	CallTime    time.Duration // for an answer that is not a stream, 1 min
	StallTime   time.Duration // that a client may leave a stream unread, 10 min
	Requests    int           // at a time, 64
}

// Server serves a Station.
type Server struct {
	o     ServerOptions
	owner int
	slots chan struct{}
	mux   *http.ServeMux
}

// NewServer makes a server for the user that runs this process.
func NewServer(o ServerOptions) *Server {
	orElse(&o.RequestTime, defaultRequestTime)
	orElse(&o.CallTime, defaultCallTime)
	orElse(&o.StallTime, defaultStallTime)
	orElse(&o.Requests, defaultRequests)
	s := &Server{o: o, owner: os.Geteuid(), slots: make(chan struct{}, o.Requests), mux: http.NewServeMux()}
	s.routes()
	return s
}

func orElse[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Serve answers on the listener until ctx ends, which also ends every stream,
// or until the listener fails. It closes the listener and returns when nothing
// that it started goes on.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &http.Server{
		Handler:        s,
		ReadTimeout:    s.o.RequestTime,
		IdleTimeout:    s.o.RequestTime,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.o.Log.Handler(), slog.LevelError),
		BaseContext:    func(net.Listener) context.Context { return calls },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c, ok := c.(*conn); ok {
				return context.WithValue(ctx, peerKey{}, c.peer)
			}
			return ctx
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
		ended <- nil
		err = fmt.Errorf("serve the administrator's socket: %w", err)
	}
	cancel()
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer done()
	if h.Shutdown(grace) != nil { // somebody does not read
		err = errors.Join(err, h.Close())
	}
	<-ended
	for range cap(s.slots) { // calls whose connection was cut end too
		s.slots <- struct{}{}
	}
	for range cap(s.slots) {
		<-s.slots
	}
	return errors.Join(err, l.Close())
}

// ServeHTTP lets in who may administer the node and speaks its protocol.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(headerProtocol, strconv.Itoa(Protocol))
	w.Header().Set(headerVersion, s.o.Version)
	peer, ok := PeerFrom(r.Context())
	if !ok || !mayAdminister(peer, s.owner) {
		s.o.Log.WarnContext(r.Context(), "refused an administrator's request", "uid", peer.UID, "pid", peer.PID)
		w.Header().Set("Connection", "close")
		s.refuse(w, r, Problemf(ErrRefused, "user %d may not administer this node: only root and user %d, who runs it, may", peer.UID, s.owner))
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Connection", "close")
		s.refuse(w, r, Problemf(ErrBusy, "the node answers %d requests at a time and no more: end some, such as those with -f", s.o.Requests))
		return
	}
	if theirs := r.Header.Get(headerProtocol); theirs != strconv.Itoa(Protocol) && r.URL.Path != pathVersion {
		s.refuse(w, r, Problemf(ErrProtocol, "the node (v6node %s) speaks version %d of the administration protocol and this program version %s: use the node's own program",
			s.o.Version, Protocol, strconv.Quote(theirs)))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.mux.ServeHTTP(w, r)
}

// A unaryCall makes an answer, a streamCall sends its items. Both are made of a
// request whose arguments were all read and found right.
type (
	unaryCall  func(context.Context) (any, error)
	streamCall func(ctx context.Context, send func(any) error) error
)

// unary answers with what the call returns. A limit of 0 is none.
func (s *Server) unary(limit time.Duration, open func(*request) (unaryCall, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		call, err := opened(w, r, open)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		ctx := r.Context()
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		answer, err := call(ctx)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		s.answer(w, r, http.StatusOK, answer)
	}
}

// stream answers with what the call sends.
func (s *Server) stream(open func(*request) (streamCall, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		call, err := opened(w, r, open)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		out := newStreamWriter(w, s.o.StallTime)
		var failure *wireError
		if err := call(r.Context(), out.send); err != nil {
			failure, _ = encodeError(err, r.Context().Err() != nil)
		}
		out.end(failure)
	}
}

// opened reads the request and makes a call of it. From then on the client may
// be silent.
func opened[C any](w http.ResponseWriter, r *http.Request, open func(*request) (C, error)) (call C, err error) {
	req, err := readRequest(r)
	if err != nil {
		return call, err
	}
	if call, err = open(req); err == nil {
		err = req.surplus()
	}
	if err != nil {
		return call, err
	}
	// Else the time for sending the request would end a stream too.
	return call, http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e, status := encodeError(err, r.Context().Err() != nil)
	s.answer(w, r, status, wireFailure{Error: e})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		s.o.Log.ErrorContext(r.Context(), "an answer to the administrator could not be written", "path", r.URL.Path, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.o.RequestTime)); err != nil {
		return // the connection is gone
	}
	w.WriteHeader(status)
	_, _ = w.Write(raw) // a client that is gone needs no answer
}
