package image

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxBody bounds the answers of a registry. Manifests and configurations have kilobytes; 4 MiB is what registries
// accept at most.
const maxBody = 4 << 20

// guard stands between the registry library and the network. Plain HTTP is only for registries that are on this
// machine or that hosts.toml names with it, and this machine's own services are only for registries on it: neither the
// library's guesses (private addresses by HTTP) nor a registry's redirects get around that.
type guard struct {
	inner    http.RoundTripper
	host     string // of the registry
	plain    bool   // which may be asked by HTTP
	loopback bool   // which is on this machine
	whole    bool   // answers may have any length
}

func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	here := isLoopback(req.URL.Host)
	switch {
	case req.URL.Scheme != "https" && !(g.plain && (req.URL.Host == g.host || here && g.loopback)):
		return nil, fmt.Errorf("%s does not offer HTTPS; plain HTTP is used on this machine, and where hosts.toml says http:// only", req.URL.Host)
	case here && !g.loopback:
		return nil, fmt.Errorf("the registry redirects to %s, a service of this machine", req.URL.Host)
	}
	resp, err := g.inner.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if g.whole {
		return resp, nil
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

// isLoopback reports whether "host[:port]" is this machine by name. Names that merely resolve to it do not count.
func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bounded fails once a body is longer than allowed.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("the registry's answer is longer than %d MiB", maxBody>>20)
	}
	return n, err
}
