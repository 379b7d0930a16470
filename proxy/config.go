package proxy

import (
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/proxy/e2e"
)

// Config is what an API needs. All fields but Key, Tasks, Log and SpoolDir are
// required.
type Config struct {
	Upstream *Upstream
	Run      Run
	// Key is the organization's private key; nil means that the collaboration
	// is not encrypted.
	Key *e2e.PrivateKey
	// Keys caches other organizations' public keys, and is shared by the runs.
	Keys *KeyCache
	// Tasks tells of changed tasks. Without it no request is held.
	Tasks TaskEvents
	Log   *slog.Logger
	// SpoolDir is where request bodies too long for memory are kept while they
	// are sent on, in files without a name; os.TempDir() by default.
	SpoolDir string
}

// Run is the run that an API serves.
type Run struct {
	RunID, TaskID, NodeID, OrganizationID, CollaborationID int64
	// Token is the run's container token: what the algorithm must show and what
	// the server is shown. It is opaque.
	Token string
}

// Upstream is the vantage6 server.
type Upstream struct {
	// Base is the address of the API, the api path included.
	Base *url.URL
	// HTTP provides the transport. Its redirect policy, timeout and cookies are
	// not used.
	HTTP *http.Client
}

// TaskEvents tells that a task may have changed. It is safe for concurrent use.
type TaskEvents interface {
	// Subscribe returns a channel on which a value is sent, never blocking, when
	// an event named the task, and also when events may have been missed. Cancel
	// ends it; it may be called more than once.
	Subscribe(taskID int64) (changed <-chan struct{}, cancel func())
}

// limits bound what one run may ask for. The defaults are documented in
// docs/proxy.md.
type limits struct {
	concurrent   int           // requests under way at a time
	queue        time.Duration // wait of a further one
	taskBody     int64         // of POST /task
	otherBody    int64         // of any other request but a blob
	blobBody     int64         // of POST /blobstream
	spooled      int64         // bodies of all requests together, in files
	heldInput    int           // an input that stands before its organization's id
	holders      int           // requests with such inputs at a time
	hold         time.Duration // of a status request
	poll         time.Duration // between two questions while holding, without an event
	soon         time.Duration // the same after an event, doubling up to poll
	readStall    time.Duration // silence of the algorithm while it sends
	writeStall   time.Duration // of the algorithm while it should receive
	headerWait   time.Duration // for the server's answer to a safe request
	slowWait     time.Duration // to any other
	bodyStall    time.Duration // silence of the server within a body
	attempts     int           // for a safe request
	retry        backoff.Policy
	maxRetryWait time.Duration // a longer Retry-After is passed on
}

func defaultLimits() limits {
	return limits{
		concurrent:   64,
		queue:        30 * time.Second,
		taskBody:     2 << 30,
		otherBody:    64 << 20,
		blobBody:     64 << 30,
		spooled:      4 << 30,
		heldInput:    16 << 20,
		holders:      2,
		hold:         20 * time.Second,
		poll:         5 * time.Second,
		soon:         50 * time.Millisecond,
		readStall:    time.Minute,
		writeStall:   5 * time.Minute,
		headerWait:   time.Minute,
		slowWait:     10 * time.Minute,
		bodyStall:    2 * time.Minute,
		attempts:     4,
		retry:        backoff.Policy{Min: 200 * time.Millisecond, Max: 5 * time.Second},
		maxRetryWait: 30 * time.Second,
	}
}

// API serves the vantage6 API to one run. It is an http.Handler, safe for
// concurrent use, and owns nothing that must be closed.
type API struct {
	run    Run
	base   *url.URL
	rt     http.RoundTripper
	key    *e2e.PrivateKey
	keys   *KeyCache
	tasks  TaskEvents
	log    *slog.Logger
	digest [sha256.Size]byte // of the token
	lim    limits
	slots  chan struct{}
	hold   chan struct{} // places of those that hold an input in memory
	spool  *spooler
}

// New returns the API of one run. It starts nothing.
func New(c Config) (*API, error) { return newAPI(c, defaultLimits()) }

func newAPI(c Config, lim limits) (*API, error) {
	switch {
	case c.Upstream == nil || c.Upstream.Base == nil:
		return nil, errors.New("proxy: no address of the vantage6 server")
	case c.Upstream.Base.Scheme != "http" && c.Upstream.Base.Scheme != "https" || c.Upstream.Base.Host == "":
		return nil, errors.New("proxy: the address of the vantage6 server is not an http or https URL")
	case c.Run.Token == "" || strings.ContainsAny(c.Run.Token, " \t\r\n"):
		return nil, errors.New("proxy: the run has no usable container token")
	case c.Keys == nil:
		return nil, errors.New("proxy: no cache of public keys")
	}
	a := &API{
		run:    c.Run,
		base:   &url.URL{Scheme: c.Upstream.Base.Scheme, Host: c.Upstream.Base.Host, Path: strings.TrimRight(c.Upstream.Base.Path, "/")},
		rt:     http.DefaultTransport,
		key:    c.Key,
		keys:   c.Keys,
		tasks:  c.Tasks,
		log:    c.Log,
		digest: sha256.Sum256([]byte(c.Run.Token)),
		lim:    lim,
		slots:  make(chan struct{}, lim.concurrent),
		hold:   make(chan struct{}, lim.holders),
	}
	if c.Upstream.HTTP != nil && c.Upstream.HTTP.Transport != nil {
		a.rt = c.Upstream.HTTP.Transport
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.log = a.log.With("run", c.Run.RunID)
	dir := c.SpoolDir
	if dir == "" {
		dir = os.TempDir()
	}
	a.spool = &spooler{dir: dir, budget: lim.spooled}
	return a, nil
}
