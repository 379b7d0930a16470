package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/proxy/internal/logtest"
)

// serve starts a forward and returns the address of its inner side. The
// returned function ends it and waits.
func serve(t *testing.T, f *Forward) (addr string, log *logtest.Records, end func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log = &logtest.Records{}
	if f.Gate == nil {
		f.Gate = NewGate()
	}
	f.Log = slog.New(slog.NewTextHandler(log, nil)).With("run", 7)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := f.Serve(ctx, l)
		if l.(*net.TCPListener).SetDeadline(time.Now()) == nil {
			err = errors.Join(err, errors.New("the listener is open"))
		}
		done <- err
	}()
	end = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), log, end
}

// outside is a server that treats each connection as the function says.
func outside(t *testing.T, treat func(*net.TCPConn)) func(context.Context) (net.Conn, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); treat(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestAConnectionIsCarriedBothWaysAndLogged(t *testing.T) {
	// The server answers only after the client's end, which has to reach it.
	addr, log, end := serve(t, &Forward{Target: "db:5432", Dial: outside(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		_, _ = c.Write(bytes.Repeat(b, 3))
	})})
	c := dial(t, addr)
	sent := bytes.Repeat([]byte("query"), 100_000)
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, bytes.Repeat(sent, 3)) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"run=7", "target=db:5432", "sent=500000", "received=1500000"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %s: %s", want, log)
		}
	}
}

func TestWhatCannotBeDialledIsClosedAndTold(t *testing.T) {
	connected := make(chan struct{})
	addr, log, end := serve(t, &Forward{Target: "db:5432", Dial: func(context.Context) (net.Conn, error) {
		<-connected
		return nil, errors.New("no such host")
	}})
	c := dial(t, addr)
	close(connected)
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v: wanted a failure", n, err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "run=7 target=db:5432 error=\"no such host\"") {
		t.Errorf("the log says %q", text)
	}
}

func TestTheEndOfTheRunEndsItsConnections(t *testing.T) {
	for _, stage := range []string{"idle", "dialling"} {
		reached := make(chan struct{})
		f := &Forward{Target: "db:5432", Dial: outside(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "x")
			close(reached)
			_, _ = io.Copy(io.Discard, c)
		})}
		if stage == "dialling" {
			f.Dial = func(ctx context.Context) (net.Conn, error) {
				close(reached)
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		addr, _, end := serve(t, f)
		c := dial(t, addr)
		<-reached
		if err := end(); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: %v", stage, err)
		}
	}
}

func TestABrokenSideBreaksTheOther(t *testing.T) {
	addr, _, _ := serve(t, &Forward{Target: "db", Dial: outside(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		Reset(c)
	})})
	c := dial(t, addr)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Error(err) // a time-out would mean that it stayed open
	}
}

func TestARunHasOnlySoManyConnections(t *testing.T) {
	gate := newGate(2, 1e6, 1e6)
	entered := make(chan struct{}, 10)
	release := make(chan struct{})
	f := &Forward{Target: "db", Gate: gate, Dial: outside(t, func(c *net.TCPConn) {
		entered <- struct{}{}
		<-release
		echo(c)
	})}
	addr, _, _ := serve(t, f)
	second := &Forward{Target: "other", Gate: gate, Dial: f.Dial}
	addr2, _, _ := serve(t, second)
	one := dial(t, addr)
	dial(t, addr2)
	<-entered
	<-entered
	third := dial(t, addr) // the kernel takes it
	if len(gate.places) != 2 || len(entered) != 0 {
		t.Fatalf("%d places are taken, %d more connections were made", len(gate.places), len(entered))
	}
	close(release)
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	<-entered
	if _, err := third.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(third, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestNewConnectionsArePaced(t *testing.T) {
	g := newGate(1000, 10, 3)
	var waits []time.Duration
	for range 5 {
		waits = append(waits, g.token())
	}
	if waits[2] > 0 || waits[3] <= 50*time.Millisecond || waits[4] <= waits[3] {
		t.Errorf("waits %v: wanted none for three, then more and more", waits)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.enter(ctx); err == nil || len(g.places) != 0 {
		t.Errorf("%v, %d places are held", err, len(g.places))
	}
}

func TestPacingEndsWithItsRun(t *testing.T) {
	g := newGate(1, 1e-3, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Pace(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAFailedListenerIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	f := &Forward{Target: "db", Gate: NewGate(), Log: slog.New(slog.DiscardHandler)}
	if err := f.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
