package image

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// elsewhere serves the fixture by HTTPS under the name registry.example.com, for which test certificates are valid.
func elsewhere(t *testing.T, f *fixture) *http.Transport {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+f.host+r.URL.RequestURI(), nil)
		if err != nil {
			panic(err)
		}
		user, _, basic := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && (!basic || user != "alice"):
			w.WriteHeader(http.StatusUnauthorized)
			return
		case r.URL.Path == "/token":
			fmt.Fprint(w, `{"token":"t0ken"}`)
			return
		case r.Header.Get("Authorization") != "Bearer t0ken":
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.example.com/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		resp, err := http.DefaultTransport.RoundTrip(up)
		if err != nil {
			panic(err)
		}
		defer func() { _ = resp.Body.Close() }()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		if _, err := bufio.NewReader(resp.Body).WriteTo(w); err != nil && r.Context().Err() == nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	tr := newTransport()
	tr.Proxy = nil
	tr.TLSClientConfig = &tls.Config{RootCAs: pool}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func TestARegistryWithTokensIsAskedByHTTPS(t *testing.T) {
	f := newFixture(t)
	digest := f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	tr := elsewhere(t, f)
	ref := "registry.example.com/org/algo:v1"
	r := newResolver(t, Options{Transport: tr, Access: withLogins(login("registry.example.com", "alice", "pw"))})
	if got := resolve(t, r, ref); got.Digest != digest || got.Pinned != "registry.example.com/org/algo@"+digest {
		t.Errorf("%+v", got)
	}
	anonymous := newResolver(t, Options{Transport: tr})
	if _, err := anonymous.Resolve(t.Context(), ref); !errors.Is(err, ErrDenied) {
		t.Errorf("without login: %v", err)
	}
	tr.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
	tr.CloseIdleConnections()
	distrustful := newResolver(t, Options{Transport: tr})
	if _, err := distrustful.Resolve(t.Context(), ref); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the certificate: %v", err)
	}
}

// The proxy variables are read once a process, so the test looks up an image in a process of its own.
func TestTheProxyOfTheEnvironmentIsUsed(t *testing.T) {
	if os.Getenv("V6NODE_TEST_PROXY") != "" {
		_, err := newResolver(t, Options{Timeout: 5 * time.Second}).Resolve(t.Context(), "registry.invalid/org/algo:v1")
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
		return
	}
	asked := make(chan string, 8)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestTheProxyOfTheEnvironmentIsUsed$")
	cmd.Env = append(os.Environ(), "V6NODE_TEST_PROXY=1", "HTTPS_PROXY="+proxy.URL, "https_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	select {
	case got := <-asked:
		if got != "CONNECT registry.invalid:443" {
			t.Errorf("the proxy was asked %q", got)
		}
	default:
		t.Error("the proxy was not asked")
	}
}
