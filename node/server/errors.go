package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrBadAPIKey: the server does not know the API key.
	ErrBadAPIKey = errors.New("the server does not recognize the API key")
	// ErrUnreachable: there was no answer. Trying again makes sense.
	ErrUnreachable = errors.New("the server cannot be reached")
	// ErrNotAPI: what answers is not the vantage6 API.
	ErrNotAPI = errors.New("what answers is not the vantage6 API")
	// ErrAlreadyFinished: the server has an outcome for this run and takes no more changes.
	ErrAlreadyFinished = errors.New("the run is already finished at the server")
	// ErrNoRun: the server says, in its own words and naming it, that it has no such run.
	ErrNoRun = errors.New("the server has no such run")
	// ErrTooLarge: the answer is larger than this node accepts.
	ErrTooLarge = errors.New("the server's answer is too large")
	// ErrNoBlobID: what should name a blob does not.
	ErrNoBlobID = errors.New("what the server has in place of the id of a blob is none")
	// ErrNotConnected: a call that needs the node's identity came before Connect.
	ErrNotConnected = errors.New("not connected to the server yet")
)

// StatusError is an HTTP error as the server answered it.
type StatusError struct {
	Code   int
	Msg    string // the server's own words, possibly empty
	Method string
	Path   string
	// Own tells that the answer has the API's form, and is no page of something
	// before it.
	Own bool
	// RetryAfter is how long the server asked to wait, 0 when it did not.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	msg := e.Msg
	if msg == "" {
		msg = http.StatusText(e.Code)
	}
	hint := ""
	if e.Code == http.StatusNotFound && strings.Contains(e.Path, "/token/") {
		hint = "; check server_url, port and api_path"
	}
	return fmt.Sprintf("the server refused %s %s with status %d: %s%s", e.Method, e.Path, e.Code, msg, hint)
}

// Retryable tells whether the same request may succeed later.
func (e *StatusError) Retryable() bool {
	switch e.Code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return e.Code > http.StatusGatewayTimeout
}

// Retryable tells whether the call that failed with err may succeed later without a change of
// anything at this end, and how long the server asked to wait (0: it did not say).
func Retryable(err error) (bool, time.Duration) {
	var se *StatusError
	if errors.As(err, &se) {
		return se.Retryable(), se.RetryAfter
	}
	return errors.Is(err, ErrUnreachable), 0
}

// Passing is Retryable for a node that has been logged in once. What would be a
// mistake of its configuration at its start is by then a state of the server, or of
// a gateway before it, which will pass: a key that is unknown while a database is
// restored, a page that says "404" or "log in" while the API is away, a fresh token
// that another instance of the server does not accept. What the API refuses for the
// request's own sake does not pass, nor does a body that a gateway finds bad or too
// large. That a run is not there may pass: it is no answer to what was asked, and one
// that nobody may take for final without asking again.
func Passing(err error) (bool, time.Duration) {
	var se *StatusError
	switch {
	case errors.Is(err, ErrBadAPIKey):
		return true, 0
	case errors.As(err, &se) && errors.Is(err, ErrNoRun):
		return true, se.RetryAfter
	case !errors.As(err, &se), se.Code == http.StatusBadRequest, se.Code == http.StatusRequestEntityTooLarge:
		return Retryable(err)
	case !se.Own, se.Code == http.StatusUnprocessableEntity, se.Code == http.StatusUnauthorized && aboutToken(se.Msg):
		return true, se.RetryAfter
	}
	return Retryable(err)
}

// aboutToken tells whether the server speaks of a token and not of what was asked
// with it. Both have status 401.
func aboutToken(msg string) bool {
	msg = strings.ToLower(msg)
	return strings.Contains(msg, "token") || strings.Contains(msg, "authorization header")
}

// unreachable wraps an error of the network; the end of the caller's context stays what it is.
func unreachable(ctx context.Context, where string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var unknown x509.UnknownAuthorityError
	var cert *tls.CertificateVerificationError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w: %s has a certificate of an unknown authority: name that authority's certificate in ca_file: %w", ErrUnreachable, where, err)
	}
	if errors.As(err, &cert) {
		return fmt.Errorf("%w: the certificate of %s is not valid for it: %w", ErrUnreachable, where, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// maxRetryAfter is the longest that a server can make the node wait. One that asks
// for more is mistaken, or means harm; asking it again this rarely does none.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads the header in its two forms, seconds and a date. The date is held
// against the one that the answer bears, so that only the server's clock counts.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	var d time.Duration
	if n, err := strconv.Atoi(v); err == nil {
		d = time.Duration(min(max(n, 0), 3600)) * time.Second // no overflow
	} else if t, err := http.ParseTime(v); err == nil {
		if sent, err := http.ParseTime(h.Get("Date")); err == nil {
			now = sent
		}
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
