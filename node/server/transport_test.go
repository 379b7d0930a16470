package server

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// caFile writes the certificate of a TLS test server.
func (f *fake) caFile() string {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.srv.Certificate().Raw})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func TestTheCAFileIsTrustedForCallsAndSocket(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		f := newFake(t)
		f.srv.EnableHTTP2 = h2
		f.srv.StartTLS()
		v := f.node(func(c *Config) { c.CAFile = f.caFile() })
		h := listen(t, v)
		h.next(Synced)
		h.stop()
	}
}

func TestAnUnknownAuthorityIsExplained(t *testing.T) {
	f := newFake(t)
	f.srv.Config.ErrorLog = discardLog()
	f.srv.StartTLS()
	_, err := f.node(nil).Connect(within(t))
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "ca_file") {
		t.Fatalf("got %v", err)
	}
}

func TestAnOldTLSVersionIsNotSpoken(t *testing.T) {
	f := newFake(t)
	f.srv.Config.ErrorLog = discardLog()
	f.srv.TLS = &tls.Config{MaxVersion: tls.VersionTLS11}
	f.srv.StartTLS()
	_, err := f.node(func(c *Config) { c.CAFile = f.caFile() }).Connect(within(t))
	if !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

// tunnel is an HTTP proxy that leads every CONNECT to one address and records what was asked.
func tunnel(t *testing.T, to string) (addr string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var hosts []string
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		mu.Lock()
		hosts = append(hosts, r.Host)
		mu.Unlock()
		up, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer up.Close()
		w.WriteHeader(http.StatusOK)
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		done := make(chan struct{}, 2)
		go func() { _, _ = io.Copy(up, buffered); done <- struct{}{} }()
		go func() { _, _ = io.Copy(conn, up); done <- struct{}{} }()
		<-done
	}))
	t.Cleanup(p.Close)
	return p.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), hosts...)
	}
}

func TestCallsAndSocketGoThroughTheProxyOfTheEnvironment(t *testing.T) {
	f := newFake(t)
	f.srv.StartTLS()
	addr, asked := tunnel(t, f.srv.Listener.Addr().String())
	t.Setenv("HTTPS_PROXY", addr)
	t.Setenv("NO_PROXY", "")
	// A name that only the proxy can reach; the test server's certificate is for example.com.
	v := f.node(func(c *Config) { c.URL = "https://example.com"; c.CAFile = f.caFile() })
	h := listen(t, v)
	h.next(Synced)
	got := asked()
	if len(got) != 2 || got[0] != "example.com:443" || got[1] != "example.com:443" {
		t.Errorf("the proxy was asked for %q; want one connection for calls and one for the socket", got)
	}
	h.stop()
}
