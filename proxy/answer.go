package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// refusal is an answer of the proxy itself, in the server's form: {"msg": ...}.
type refusal struct {
	status int
	msg    string
}

func (r *refusal) Error() string { return r.msg }

func refuse(status int, msg string) error { return &refusal{status, msg} }

// Faults that more than one kind of request can have.
var (
	errBody    = refuse(http.StatusBadRequest, "The body of the request could not be read to its end.")
	errTooLong = refuse(http.StatusRequestEntityTooLarge, "The body of the request is too long for the node's proxy.")
	errServer  = refuse(http.StatusBadGateway, "The vantage6 server could not be reached by the node, or broke off; try again later.")
	errOdd     = refuse(http.StatusBadGateway, "The vantage6 server's answer is not what its API promises.")
)

// answer is the response to the algorithm. The first piece of the body is kept
// back, so that an error found early still becomes a status; and each write
// gives the algorithm a fresh deadline to take it.
type answer struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	stall  time.Duration
	status int  // as set, 0 before
	sent   bool // the header is on its way
	bytes  int64
	held   []byte
	// bodiless answers (to HEAD, 204, 304) have no length of their own.
	bodiless bool
}

const heldBack = 32 << 10

func newAnswer(w http.ResponseWriter, stall time.Duration) *answer {
	return &answer{w: w, rc: http.NewResponseController(w), stall: stall}
}

func (a *answer) Header() http.Header { return a.w.Header() }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(p []byte) (int, error) {
	if !a.sent && len(a.held)+len(p) <= heldBack {
		a.held = append(a.held, p...)
		return len(p), nil
	}
	if err := a.send(); err != nil {
		return 0, err
	}
	return a.write(p)
}

func (a *answer) send() error {
	if a.sent {
		return nil
	}
	a.sent = true
	if a.status == 0 {
		a.status = http.StatusOK
	}
	a.deadline()
	a.w.WriteHeader(a.status)
	held := a.held
	a.held = nil
	_, err := a.write(held)
	return err
}

func (a *answer) write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	a.deadline()
	n, err := a.w.Write(p)
	a.bytes += int64(n)
	return n, err
}

func (a *answer) deadline() {
	// Without deadlines (a test's recorder) there is none to set.
	_ = a.rc.SetWriteDeadline(time.Now().Add(a.stall))
}

// finish sends what is held back. When that is the whole body, its length is
// known.
func (a *answer) finish() error {
	if !a.sent && !a.bodiless && a.Header().Get("Content-Length") == "" {
		a.Header().Set("Content-Length", strconv.Itoa(len(a.held)))
	}
	return a.send()
}

// fail answers with the error, or breaks the connection when the answer has
// begun: the algorithm must not take half a body for a whole one.
func (a *answer) fail(err error) {
	if a.sent {
		panic(http.ErrAbortHandler)
	}
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{http.StatusInternalServerError, "The node's proxy failed; its log says more."}
	}
	h := a.Header()
	clear(h)
	h.Set("Content-Type", "application/json")
	if r.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	text, err := json.Marshal(map[string]string{"msg": r.msg})
	if err != nil {
		panic(err) // cannot happen: two strings
	}
	a.status, a.held, a.bodiless = r.status, text, false
	_ = a.finish() // the algorithm is gone; nobody to tell
}
