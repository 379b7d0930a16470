package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"
)

// passedOn are the request headers that the server gets to see. A list of what
// is allowed leaves no way to speak to gateways in front of the server.
var passedOn = [...]string{
	"Accept", "Accept-Encoding", "Accept-Language", "Content-Encoding", "Content-Type",
	"If-Modified-Since", "If-None-Match", "User-Agent",
}

func outgoing(r *http.Request) http.Header {
	h := make(http.Header, len(passedOn)+1)
	for _, name := range passedOn {
		if v := r.Header.Values(name); len(v) > 0 {
			h[name] = v
		}
	}
	return h
}

// connectionBound are the response headers that end here: they are about the
// connection between proxy and server, or about the server's address.
var connectionBound = [...]string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Alt-Svc", "Content-Location",
}

// relayHeader copies status and headers of the server's response.
func (a *API) relayHeader(w *answer, resp *http.Response) error {
	location := ""
	if resp.Header.Get("Location") != "" {
		to, ok := a.location(resp)
		if !ok && resp.StatusCode/100 == 3 {
			return errElsewhere
		}
		location = to
	}
	gone := make(map[string]bool)
	for _, name := range connectionBound {
		gone[name] = true
	}
	for _, list := range resp.Header.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			gone[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	h := w.Header()
	for name, values := range resp.Header {
		if !gone[name] {
			h[name] = values
		}
	}
	h.Del("Location")
	if location != "" {
		h.Set("Location", location)
	}
	w.WriteHeader(resp.StatusCode)
	return nil
}

var errElsewhere = refuse(http.StatusBadGateway, "The vantage6 server redirected the node's proxy to another address, which is not followed; the node's server_url should name that address.")

// relay copies the server's response as it is.
func (a *API) relay(w *answer, r *http.Request, resp *http.Response) error {
	if err := a.relayHeader(w, resp); err != nil {
		return err
	}
	w.bodiless = r.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	if w.bodiless {
		return nil
	}
	return copyTo(w, resp.Body, resp.ContentLength)
}

// copyTo copies a body of n bytes, or of an unknown number (-1), in pieces that
// are large where the body is: each is two system calls.
func copyTo(w *answer, r io.Reader, n int64) error {
	size := int64(128 << 10)
	if n >= 0 {
		size = min(size, n+1)
	}
	_, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, size))
	return err
}

// forward sends the request on as it is.
func (a *API) forward(w *answer, r *http.Request) error {
	c := call{method: r.Method, path: r.URL.Path, query: r.URL.RawQuery, header: outgoing(r)}
	if r.Body != http.NoBody {
		body := a.spool.new()
		defer body.Close()
		if _, err := io.Copy(body, r.Body); err != nil {
			return err
		}
		c.setBody(body)
	}
	resp, err := a.ask(r.Context(), c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return a.relay(w, r, resp)
}

func (c *call) setBody(b *spool) { c.body, c.length, c.replay = b.reader, b.size(), true }

// transformed says that the body that follows is not the server's any more.
func transformed(h http.Header) {
	for _, name := range []string{"Content-Length", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Etag", "Accept-Ranges"} {
		h.Del(name)
	}
}

// plainOK reports whether the response is one to transform; one with an
// encoding that was not asked for cannot be.
func plainOK(resp *http.Response) (bool, error) {
	if resp.StatusCode != http.StatusOK {
		return false, nil
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return false, errors.Join(errOdd, errors.New("unexpected Content-Encoding "+short(e)))
	}
	return true, nil
}
