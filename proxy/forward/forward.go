package forward

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// dialTimeout bounds how long the algorithm waits for the outer connection.
const dialTimeout = 30 * time.Second

// Forward carries what connects to a listener to one place.
type Forward struct {
	// Dial opens the connection outside, with the name resolved at that moment.
	Dial func(ctx context.Context) (net.Conn, error)
	// Target names it in the log.
	Target string
	// Gate is that of the run.
	Gate *Gate
	// Meter counts; nil counts nothing.
	Meter *Meter
	// Log knows the run.
	Log *slog.Logger
}

// Serve carries every connection that l accepts until ctx ends, and returns when
// the last one is closed. Then it returns nil; other errors are those of the
// listener, which is closed in any case.
func (f *Forward) Serve(ctx context.Context, l net.Listener) error {
	serving, end := context.WithCancel(ctx)
	var carried sync.WaitGroup
	defer carried.Wait()
	defer end()
	defer l.Close()
	stop := context.AfterFunc(serving, func() { l.Close() })
	defer stop()
	for {
		c, leave, err := f.Gate.Accept(serving, l)
		if ctx.Err() != nil {
			if err == nil {
				Reset(c)
				leave()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept connections to %s: %w", f.Target, err)
		}
		carried.Go(func() {
			defer leave()
			f.carry(serving, c)
		})
	}
}

func (f *Forward) carry(ctx context.Context, inner net.Conn) {
	began := time.Now()
	dialling, cancel := context.WithTimeout(ctx, dialTimeout)
	outer, err := f.Dial(dialling)
	cancel()
	if err != nil {
		if ctx.Err() == nil { // else the run has ended
			f.Log.WarnContext(ctx, "a connection of the algorithm could not be made and was closed", "target", f.Target, "error", err)
		}
		f.Meter.Fail()
		Reset(inner)
		return
	}
	sent, received := Relay(ctx, inner, outer, f.Meter)
	f.Log.InfoContext(ctx, "a connection of the algorithm has ended", "target", f.Target,
		"sent", sent, "received", received, "took", time.Since(began).Round(time.Millisecond))
}

// Relay copies both ways between two connections until both have ended, one has
// failed, or ctx ends, and closes them. An end of one direction alone is passed
// on. It returns how many bytes went from inner to outer and back, which m counts as they go.
func Relay(ctx context.Context, inner, outer net.Conn, m *Meter) (sent, received int64) {
	defer m.Begin()()
	closeBoth := sync.OnceFunc(func() { inner.Close(); outer.Close() })
	defer closeBoth()
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	way := func(to, from net.Conn, count func(int64)) int64 {
		n, err := counted(to, from, count)
		if err != nil || closeWrite(to) != nil {
			closeBoth()
		}
		return n
	}
	var there sync.WaitGroup
	there.Go(func() { sent = way(outer, inner, m.Sent) })
	received = way(inner, outer, m.Received)
	there.Wait()
	return sent, received
}

// closeWrite ends one direction. A connection that cannot is one whose ends end
// together.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("%T has no directions", c)
}

// Reset closes a connection so that the other end sees a failure and not the
// regular end of nothing.
func Reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else it ends like any other
	}
	c.Close()
}
