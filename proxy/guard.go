package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// errGone says that the algorithm is not there any more to be answered. The
// status is only for the log.
var errGone = refuse(499, "The algorithm went away.")

// checkRequest refuses what no vantage6 client sends and what could mean
// something else to the server than to this proxy.
func checkRequest(r *http.Request) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		return refuse(http.StatusMethodNotAllowed, "The node's proxy does not forward this method.")
	}
	// An absolute URI or an authority names a host; ours is fixed.
	if r.URL.Host != "" || r.URL.Scheme != "" || r.URL.Opaque != "" || r.RequestURI != "" && !strings.HasPrefix(r.RequestURI, "/") {
		return refuse(http.StatusBadRequest, "The node's proxy takes a path, not an absolute address.")
	}
	if r.Header.Get("Upgrade") != "" {
		return refuse(http.StatusBadRequest, "The node's proxy does not switch protocols.")
	}
	if !safePath(r.URL.Path) || strings.Contains(r.URL.EscapedPath(), "%") {
		return refuse(http.StatusBadRequest, "This path is not one of the vantage6 API: segments of letters, digits, and . _ - are allowed, without . and .. alone.")
	}
	// Where the api path is empty it would be reachable; it is the node's.
	if p := strings.ToLower(r.URL.Path); p == "/socket.io" || strings.HasPrefix(p, "/socket.io/") {
		return refuse(http.StatusNotFound, "The socket connection is not available to algorithms.")
	}
	return nil
}

// safePath accepts paths that mean the same to everybody: no empty or dot
// segments, no characters that would have to be escaped.
func safePath(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	for _, segment := range strings.Split(strings.TrimSuffix(p[1:], "/"), "/") {
		if segment == "" && p != "/" || segment == "." || segment == ".." {
			return false
		}
		for _, c := range []byte(segment) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
				return false
			}
		}
	}
	return true
}

// limitBody gives the request's body an end: of bytes, and of patience with an
// algorithm that stops sending.
func (a *API) limitBody(w *answer, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		r.Body = http.NoBody
		return
	}
	b := &body{r: r.Body, rc: w.rc, stall: a.lim.readStall, left: a.lim.otherBody}
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/task":
		b.left = a.lim.taskBody
	case "/blobstream":
		b.left = a.lim.blobBody
	}
	r.Body = b
}

// body is the algorithm's body. Its errors are answers, and it remembers the
// first: the HTTP client wraps or hides what a body returns. The methods but Read
// may be called while another goroutine reads.
type body struct {
	r     io.ReadCloser
	rc    *http.ResponseController
	stall time.Duration
	left  int64

	mu  sync.Mutex
	err error
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.err != nil {
		defer b.mu.Unlock()
		return 0, b.err
	}
	b.deadline(time.Now().Add(b.stall))
	b.mu.Unlock()

	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		n, err = 0, errTooLong
	} else if err != nil && err != io.EOF {
		err = errBody
	}
	if err == nil {
		return n, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
		// From here the HTTP server watches the connection, without haste.
		b.deadline(time.Time{})
	}
	return n, err
}

// deadline sets until when the algorithm may be silent. Without deadlines (a
// test's request) there is none to set.
func (b *body) deadline(at time.Time) { _ = b.rc.SetReadDeadline(at) }

// fault returns what went wrong with the body so far.
func (b *body) fault() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == io.EOF {
		return nil
	}
	return b.err
}

// lingerTime is how long the HTTP server may go on to read a body that nobody
// wants, so that the client sees the answer before the connection breaks.
const lingerTime = 5 * time.Second

func (b *body) linger() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = errBody
		b.deadline(time.Now().Add(lingerTime))
	}
}

// Close ends reading, also one under way.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = errBody
		b.deadline(time.Unix(1, 0))
	}
	return nil
}
