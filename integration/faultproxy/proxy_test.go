package faultproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair is a proxy for an HTTP server that answers a POST with its body, and a
// client of it.
type pair struct {
	*Proxy
	client *http.Client
	url    string
}

func newPair(t *testing.T, keys *Keys) *pair {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, _ = w.Write(body) // the client may be gone
	}))
	t.Cleanup(srv.Close)
	p, err := New(srv.Listener.Addr().String(), keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Shut)
	tr := &http.Transport{}
	out := &pair{Proxy: p, client: &http.Client{Transport: tr}, url: "http://127.0.0.1:" + strconv.Itoa(p.Port())}
	if keys != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(keys.Authority) {
			t.Fatal("the authority's certificate is not in PEM")
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: pool}
		out.url = "https" + strings.TrimPrefix(out.url, "http")
	}
	t.Cleanup(tr.CloseIdleConnections)
	return out
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// post sends a body of so many bytes; an answer must be the same.
func (p *pair) post(ctx context.Context, size int) error {
	body := bytes.Repeat([]byte("x"), size)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Equal(got, body) {
		return errors.New("the answer is another one")
	}
	return err
}

func (p *pair) set(t *testing.T, f Fault) {
	t.Helper()
	if err := p.Set(f); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) works(t *testing.T) {
	t.Helper()
	if err := p.post(within(t, 30*time.Second), 200_000); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedConnectionsAreRefusedUntilTheFaultIsOver(t *testing.T) {
	p := newPair(t, nil)
	p.works(t)
	if err := p.Break(Fault{Refuse: true}); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(within(t, 30*time.Second), func(s Stats) bool { return s.Connected == 0 }); err != nil {
		t.Fatal(err)
	}
	if err := p.post(within(t, 30*time.Second), 1); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	port := p.Port()
	p.set(t, Fault{})
	p.works(t)
	if p.Port() != port {
		t.Errorf("the port was %d and is %d", port, p.Port())
	}
}

func TestAConnectionEndsAfterSoManyBytes(t *testing.T) {
	for name, f := range map[string]Fault{
		"closed on the way up":   {End: Close, Up: 100_000, Down: Never, Times: 1},
		"closed on the way down": {End: Close, Up: Never, Down: 100_000, Times: 1},
		"reset on the way up":    {End: Reset, Up: 100_000, Down: Never, Times: 1},
		"reset on the way down":  {End: Reset, Up: Never, Down: 100_000, Times: 1},
		"reset at once":          {End: Reset, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, nil)
			p.set(t, f)
			if err := p.post(within(t, 30*time.Second), 1_000_000); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a request that cannot get through ended with %v", err)
			}
			if err := p.Wait(within(t, 30*time.Second), func(s Stats) bool { return s.Ended == 1 }); err != nil {
				t.Error(err)
			}
			p.works(t) // once was enough
		})
	}
}

func TestExactlyTheLimitPasses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan int64, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c) // it ends with a reset
		got <- n
	}()
	p, err := New(ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Shut()
	if err := p.Set(Fault{End: Close, Up: 70_001, Down: Never}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(make([]byte, 200_000)) // it is cut
	if n := <-got; n != 70_001 {
		t.Errorf("%d bytes came through, want 70001", n)
	}
}

func TestAStalledConnectionStaysStalledAndOthersPass(t *testing.T) {
	for name, f := range map[string]Fault{
		"from its first byte": {End: Stall, Times: 1},
		"in its middle":       {End: Stall, Up: 100_000, Down: Never, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, nil)
			p.set(t, f)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- p.post(ctx, 1_000_000) }()
			if err := p.Wait(within(t, 30*time.Second), func(s Stats) bool { return s.Ended == 1 && s.Connected == 1 }); err != nil {
				t.Fatal(err)
			}
			p.works(t)
			p.set(t, Fault{})
			p.works(t)
			select {
			case err := <-ended:
				t.Errorf("the stalled request ended with %v", err)
			default:
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

func TestBytesAreRationed(t *testing.T) {
	p := newPair(t, nil)
	p.works(t)
	p.set(t, Fault{Rate: 100_000})
	began := time.Now()
	if err := p.post(within(t, time.Minute), 50_000); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("50 kB took %v at 100 kB/s", took)
	}
}

func TestACertificateIsAcceptedOnlyIfItIsValid(t *testing.T) {
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	p := newPair(t, keys)
	p.works(t)
	for c, complaint := range map[Certificate]string{Foreign: "unknown authority", Expired: "expired", OtherName: "not 127.0.0.1"} {
		if err := p.Break(Fault{Certificate: c}); err != nil {
			t.Fatal(err)
		}
		if err := p.post(within(t, 30*time.Second), 1); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("certificate %d: %v", c, err)
		}
	}
	p.set(t, Fault{})
	p.works(t)
	if err := p.Wait(within(t, 30*time.Second), func(s Stats) bool { return s.Refused >= 3 }); err != nil {
		t.Error(err)
	}
}

func TestNothingIsLeftOfAProxyThatIsShut(t *testing.T) {
	p := newPair(t, nil)
	p.works(t)
	p.set(t, Fault{End: Stall})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.post(ctx, 1) }()
	if err := p.Wait(within(t, 30*time.Second), func(s Stats) bool { return s.Ended == 1 }); err != nil {
		t.Fatal(err)
	}
	p.Shut()
	cancel()
	<-ended
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if bytes.Contains(stacks, []byte("faultproxy.(*conn)")) || bytes.Contains(stacks, []byte("faultproxy.(*Proxy).accept")) {
		t.Errorf("goroutines of the proxy are left:\n%s", stacks)
	}
	if err := p.Set(Fault{}); err == nil {
		t.Error("a proxy that is shut listens again")
	}
	if _, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(p.Port()), time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it still accepts connections (%v)", err)
	}
}
