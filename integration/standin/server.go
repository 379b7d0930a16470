package standin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configure a Server; the zero value is a server as most installations
// run it.
type Options struct {
	// APIPath is the path of the REST API, default "/api"; "/" stands for none.
	// Socket.IO is at /socket.io/ on the host root whatever it is.
	APIPath string
	// Listen is the address to listen on, default 127.0.0.1:0.
	Listen string
	// TLS serves https when set.
	TLS *tls.Config
	// BlobStore turns the blob store on: inputs and results are then UUIDs of
	// blobs. They are kept in files in BlobDir, by default in a directory of the
	// server's own that is removed at its end.
	BlobStore bool
	BlobDir   string
	// Life of access and refresh tokens, default 6 h and 48 h.
	AccessLife, RefreshLife time.Duration
	// Engine.IO ping interval and timeout, default 25 s and 60 s.
	PingInterval, PingTimeout time.Duration
	// OfflineAfter is how long a node may be silent (application pings) before it
	// is set offline, default 65 s.
	OfflineAfter time.Duration
	// MaxBody bounds a request's body that is no blob, default 1 GiB.
	MaxBody int64
	// Log gets a line for each request at debug level; nil is silent.
	Log *slog.Logger
}

// Server is a stand-in vantage6 v4 server. Its methods may be called from any
// goroutine.
type Server struct {
	opt  Options
	api  string // without trailing slash
	addr string
	http http.Handler

	blobs *blobStore

	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	life     sync.Mutex // guards listening: Stop, Start, Close
	srv      *http.Server
	serveEnd chan struct{}

	mu        sync.Mutex
	secret    []byte
	serial    int64
	expired   map[expiryKey]int64
	seq       sequences
	orgs      map[int64]*organization
	collabs   map[int64]*collaboration
	studies   map[int64]*study
	stores    map[int64]*store
	nodes     map[int64]*node
	users     map[int64]*user
	tasks     map[int64]*task
	runs      map[int64]*run
	sockets   map[*socket]struct{}
	faults    []*Injected
	skew      time.Duration
	blobLimit int64
	silent    bool
	deaf      bool
	closed    bool
	reqLog    []Request
	events    []NodeEvent
	changed   chan struct{} // closed and replaced at each change
}

// New starts a server on loopback. The caller closes it.
func New(o Options) (*Server, error) {
	setDefault(&o.Listen, "127.0.0.1:0")
	setDefault(&o.APIPath, "/api")
	setDefault(&o.AccessLife, 6*time.Hour)
	setDefault(&o.RefreshLife, 48*time.Hour)
	setDefault(&o.PingInterval, 25*time.Second)
	setDefault(&o.PingTimeout, 60*time.Second)
	setDefault(&o.OfflineAfter, 65*time.Second)
	setDefault(&o.MaxBody, 1<<30)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		opt: o, api: strings.TrimRight(o.APIPath, "/"), addr: o.Listen,
		secret: []byte(newUUID()), serial: 1, expired: map[expiryKey]int64{}, seq: newSequences(),
		orgs: map[int64]*organization{}, collabs: map[int64]*collaboration{}, studies: map[int64]*study{},
		stores: map[int64]*store{}, nodes: map[int64]*node{}, users: map[int64]*user{}, tasks: map[int64]*task{},
		runs: map[int64]*run{}, sockets: map[*socket]struct{}{},
		changed: make(chan struct{}),
	}
	if s.api != "" && !strings.HasPrefix(s.api, "/") {
		return nil, fmt.Errorf("stand-in server: the API path %q does not start with a slash", o.APIPath)
	}
	var err error
	if s.blobs, err = newBlobStore(o.BlobDir); err != nil {
		return nil, err
	}
	s.http = s.injectFaults(s.routes())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.Start(); err != nil {
		s.cancel()
		return nil, errors.Join(err, s.blobs.close())
	}
	s.work.Go(s.watchPings)
	return s, nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Start listens again after Stop, on the same address. It does nothing when the
// server listens.
func (s *Server) Start() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.srv != nil {
		return nil
	}
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("stand-in server: %w", err)
	}
	s.addr = ln.Addr().String()
	serveOn := ln
	if s.opt.TLS != nil {
		serveOn = tls.NewListener(ln, s.opt.TLS)
	}
	srv := &http.Server{
		Handler:           s.http,
		ReadHeaderTimeout: 30 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ErrorLog:          log.New(io.Discard, "", 0), // tests abort connections on purpose
	}
	end := make(chan struct{})
	s.srv, s.serveEnd = srv, end
	go func() {
		defer close(end)
		if err := srv.Serve(serveOn); !errors.Is(err, http.ErrServerClosed) {
			s.opt.Log.Error("stand-in server stopped listening", "error", err)
		}
	}()
	return nil
}

// Stop closes the listener, every connection and every socket, as a server does
// that dies. What it knows is kept; events that fall into the time until Start are
// lost to the nodes.
func (s *Server) Stop() {
	s.life.Lock()
	defer s.life.Unlock()
	s.stop()
}

func (s *Server) stop() {
	if s.srv == nil {
		return
	}
	s.srv.Close()
	<-s.serveEnd
	s.srv = nil
	s.CloseSockets(0)
}

// Close ends the server and all that runs for it.
func (s *Server) Close() {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	s.closed = true // no request is counted in s.work from here on
	s.mu.Unlock()
	s.cancel()
	s.stop()
	s.work.Wait()
	if err := s.blobs.close(); err != nil {
		s.opt.Log.Error("the stand-in server left its blobs behind", "error", err)
	}
}

// Host returns scheme and address, without the API path: http://127.0.0.1:PORT.
func (s *Server) Host() string {
	if s.opt.TLS != nil {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// URL returns the address of the REST API, including the API path.
func (s *Server) URL() string { return s.Host() + s.api }

// Port returns the TCP port that the server listens on.
func (s *Server) Port() int {
	a, err := net.ResolveTCPAddr("tcp", s.addr)
	if err != nil {
		return 0
	}
	return a.Port
}

// APIPath returns the API path as a node configures it ("/api", or "").
func (s *Server) APIPath() string { return s.api }

// changedLocked wakes everything that waits for a condition.
func (s *Server) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait blocks until cond, which is evaluated under the lock, holds.
func (s *Server) wait(ctx context.Context, cond func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := cond(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return errors.New("stand-in server: closed while waiting")
		}
	}
}
