package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// start serves h as a run's listener is served.
func start(t *testing.T, h http.Handler) (addr string, stop context.CancelFunc, ended <-chan error) {
	t.Helper()
	checkLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(bg)
	t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, h) }()
	return l.Addr().String(), cancel, done
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func TestServeFinishesWhatIsUnderWayAndThenEnds(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	addr, stop, ended := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(w, "whole")
	}))
	c := dial(t, addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	stop()
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "whole" {
		t.Fatalf("%q, %v", body, err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Fatal("the listener is still open")
	}
}

func TestServeReportsALostListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(bg, l, http.NotFoundHandler()); err == nil {
		t.Fatal("no error")
	}
}

func TestHeldRequestsAreAnsweredWhenServingEnds(t *testing.T) {
	e, s := newEvents(), newStatusServer("active")
	f := newFixture(t, s.ServeHTTP, withTasks(e), withLimits(noPolling))
	addr, stop, ended := start(t, f.api)
	c := dial(t, addr)
	fmt.Fprintf(c, "GET /task/4/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", token)
	<-s.asked
	stop()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%+v, %v", resp, err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestOptionsOfTheWholeServerAreRefused(t *testing.T) {
	f := newFixture(t, mustNotBeAsked(t))
	addr, _, _ := start(t, f.api)
	c := dial(t, addr)
	fmt.Fprintf(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", token)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Fatalf("%+v, %v", resp, err)
	}
}

func TestHeadersHaveALimit(t *testing.T) {
	addr, _, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("the handler was called") }))
	c := dial(t, addr)
	go fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*maxHeaderBytes))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 431 {
		t.Fatalf("%+v, %v", resp, err)
	}
}

func TestConnectionsHaveALimit(t *testing.T) {
	addr, _, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }))
	ask := func(c net.Conn) error {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := http.ReadResponse(bufio.NewReader(c), nil)
		return err
	}
	first := dial(t, addr)
	if err := ask(first); err != nil {
		t.Fatal(err)
	}
	for range maxConnections - 1 {
		if err := ask(dial(t, addr)); err != nil {
			t.Fatal(err)
		}
	}
	late := dial(t, addr) // the kernel takes it, we do not
	_ = late.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if err := ask(late); err == nil {
		t.Fatal("one connection too many is served")
	}
	first.Close()
	_ = late.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := http.ReadResponse(bufio.NewReader(late), nil); err != nil {
		t.Fatalf("not served after another one left: %v", err)
	}
}
