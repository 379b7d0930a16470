package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Greeting is what a server tells anybody.
type Greeting struct {
	Version string // "4.13.1"; "" when it does not tell
	// Ahead is how far the server's clock is ahead of this machine's, at most a
	// second and the way of the answer wrong.
	Ahead     time.Duration
	KnowsTime bool // Ahead is known
}

// Greet asks for the server's version, without logging in. Errors are those of
// API, without ErrBadAPIKey.
func (v *V4) Greet(ctx context.Context) (Greeting, error) {
	var g Greeting
	var answer struct {
		Version string `json:"version"`
	}
	asked := v.now()
	err := v.attempt(ctx, call{method: http.MethodGet, path: "/version", out: into(&answer), header: func(h http.Header) {
		at, err := http.ParseTime(h.Get("Date"))
		if err != nil {
			return
		}
		// The header has whole seconds, cut off; the server wrote it somewhere
		// between question and answer.
		now := v.now()
		g.Ahead, g.KnowsTime = at.Add(time.Second/2).Sub(asked.Add(now.Sub(asked)/2)), true
	}}, "")
	var se *StatusError
	if errors.As(err, &se) && se.Code == http.StatusNotFound {
		return g, errors.Join(ErrNotAPI, err)
	}
	g.Version = answer.Version
	return g, err
}

// Proxy returns the HTTP proxy by which the environment says that the server is
// to be reached, without its credentials; nil for none.
func (v *V4) Proxy() (*url.URL, error) {
	p, err := httpproxy.FromEnvironment().ProxyFunc()(v.base)
	if err != nil || p == nil {
		return nil, err
	}
	return &url.URL{Scheme: p.Scheme, Host: p.Host}, nil
}
