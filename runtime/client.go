package runtime

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	defaultCallTimeout = 60 * time.Second
	// probeTimeout bounds each question asked to find out what the endpoint is.
	probeTimeout = 10 * time.Second
	// maxMessage bounds one message of the runtime. A list of a thousand
	// containers takes about 1 MiB.
	maxMessage = 16 << 20
)

// Options of a Client. The zero value is good.
type Options struct {
	// Log receives what an administrator may want to know; nil discards it.
	Log *slog.Logger
	// CallTimeout bounds one call, without StopContainer's grace and without
	// pulls. Default 60 s.
	CallTimeout time.Duration
	// AllowNotReady lets Dial succeed on a CRI runtime whose Status says that
	// it or its network is not ready, so that the network can be installed.
	// Client.Ready then tells what is missing.
	AllowNotReady bool
	// CgroupBase is the control group below which those of the runs are made,
	// as DelegatedCgroup returns it; "" is the top.
	CgroupBase string
	// NoCgroups: neither client nor runtime may make control groups. Then each
	// limit that needs one is ErrLimit.
	NoCgroups bool
}

// Client speaks to one CRI runtime. It is safe for concurrent use. It survives
// restarts of the runtime: calls made meanwhile wait for it, at most
// Options.CallTimeout, and calls that were cut off fail with ErrNotReady.
type Client struct {
	log     *slog.Logger
	path    string // of the socket
	timeout time.Duration
	conn    *grpc.ClientConn
	rt      cri.RuntimeServiceClient
	img     cri.ImageServiceClient
	info    atomic.Pointer[Info]
	host    *cgroupHost

	eventsOnce  sync.Once
	eventsKnown chan struct{} // closed when events is set
	events      Answer

	// The client owns the pulls, because callers share them.
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool
	pulls  map[string]*pull
	wg     sync.WaitGroup
}

// Dial connects to the CRI runtime at endpoint ("unix:///path" or an absolute
// path) and asks what it is. It fails with ErrEndpoint, ErrEndpointMissing,
// ErrNotSocket, ErrPermission, ErrNotCRI or ErrNotReady. The caller closes the
// client.
func Dial(ctx context.Context, endpoint string, o Options) (*Client, error) {
	path, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if err := checkEndpoint(ctx, path); err != nil {
		return nil, err
	}
	host, err := findCgroupHost()
	if err != nil {
		return nil, err
	}
	host.base, host.none = o.CgroupBase, o.NoCgroups
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = defaultCallTimeout
	}
	conn, err := grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// gRPC's own unix resolver makes the path the authority; some servers
		// refuse such a header, "localhost" is what the kubelet sends.
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			// Often: a unix socket costs little, and a containerd that comes back
			// repeats events that nobody hears who is late.
			Backoff: backoff.Config{
				BaseDelay:  20 * time.Millisecond,
				Multiplier: 1.6,
				Jitter:     0.2,
				MaxDelay:   100 * time.Millisecond,
			},
			MinConnectTimeout: 3 * time.Second,
		}),
		// An idle connection costs nothing on a unix socket, a new one costs a
		// run its first milliseconds.
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage),
		),
	)
	if err != nil {
		return nil, &Error{Op: "use the CRI endpoint unix://" + path, Cause: err}
	}
	c := &Client{
		log:     o.Log,
		path:    path,
		timeout: o.CallTimeout,
		conn:    conn,
		rt:      cri.NewRuntimeServiceClient(conn),
		img:     cri.NewImageServiceClient(conn),
		host:    host,
		pulls:   map[string]*pull{},

		eventsKnown: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.info.Store(&Info{Endpoint: "unix://" + path})
	notReady, err := c.probe(ctx)
	if err == nil && !o.AllowNotReady {
		err = notReady
	}
	if err != nil {
		c.cancel()
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection and with it all calls and pulls under way; it
// returns when they have ended. What runs in the runtime goes on running.
// Closing twice is allowed.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	err := c.conn.Close()
	c.wg.Wait()
	return err
}

// retryPause is between two attempts of a call while the runtime is away;
// gRPC's own backoff comes on top.
const retryPause = 100 * time.Millisecond

// call makes a unary call that may be repeated without harm: it waits for a
// restarting runtime, and is made again when the runtime went away before it
// answered.
func call[Q, A any](ctx context.Context, c *Client, op string, f func(context.Context, Q, ...grpc.CallOption) (A, error), req Q) (A, error) {
	return callFor(ctx, c, op, c.timeout, f, req)
}

// callFor is call with another limit than the client's.
func callFor[Q, A any](ctx context.Context, c *Client, op string, limit time.Duration, f func(context.Context, Q, ...grpc.CallOption) (A, error), req Q) (A, error) {
	return attempt(ctx, op, limit, f, req, func(error) bool { return true })
}

// callOnce makes a unary call that has an effect each time. It waits for a
// restarting runtime too, but when the connection breaks during the call nobody
// knows what has happened, and the error is ErrNotReady.
func callOnce[Q, A any](ctx context.Context, c *Client, op string, f func(context.Context, Q, ...grpc.CallOption) (A, error), req Q) (A, error) {
	return attempt(ctx, op, c.timeout, f, req, func(err error) bool {
		// containerd says this while it reads its state after a restart.
		return strings.Contains(causeText(err), "server is not initialized")
	})
}

func attempt[Q, A any](ctx context.Context, op string, limit time.Duration, f func(context.Context, Q, ...grpc.CallOption) (A, error), req Q, again func(error) bool) (A, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		answer, err := f(limited, req, grpc.WaitForReady(true))
		if status.Code(err) == codes.Unavailable && again(err) && pause(limited, retryPause) {
			continue
		}
		return answer, callError(ctx, op, limit, err)
	}
}
