package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// token is one answer of a token endpoint.
type token struct {
	access, refresh string
	node            int64     // claim sub
	expires         time.Time // by this machine's clock
	renew           time.Time // from then on a new one is fetched
}

// tokens hands out the node's access token and renews it: with the refresh token, and when that
// is dead, with the API key. However many callers need a new token, one of them fetches it.
type tokens struct {
	login   func(ctx context.Context) (token, error)
	refresh func(ctx context.Context, refreshToken string) (token, error)
	now     func() time.Time
	log     *slog.Logger

	fetching chan struct{} // capacity 1: held by the caller that fetches

	mu       sync.Mutex
	cur      token
	attempts int // finished fetches
	lastErr  error
}

// retryRefresh is the pause after a failed renewal of a token that is still valid.
const retryRefresh = 30 * time.Second

func newTokens(login func(context.Context) (token, error), refresh func(context.Context, string) (token, error), now func() time.Time, log *slog.Logger) *tokens {
	return &tokens{login: login, refresh: refresh, now: now, log: log, fetching: make(chan struct{}, 1)}
}

// get returns a token that is good by its dates and is not bad, which is the access token that the
// server has just refused, or "". With withKey a new one comes from the API key only.
func (t *tokens) get(ctx context.Context, bad string, withKey bool) (token, error) {
	t.mu.Lock()
	cur, seen := t.cur, t.attempts
	t.mu.Unlock()
	if t.fresh(cur, bad) {
		return cur, nil
	}
	select {
	case t.fetching <- struct{}{}:
	case <-ctx.Done():
		return token{}, context.Cause(ctx)
	}
	defer func() { <-t.fetching }()

	t.mu.Lock()
	cur = t.cur
	shared := t.attempts != seen
	lastErr := t.lastErr
	t.mu.Unlock()
	if t.fresh(cur, bad) {
		return cur, nil
	}
	if shared && lastErr != nil {
		return token{}, lastErr // another caller has just tried for both
	}
	next, err := t.fetch(ctx, cur, bad, withKey)
	if err != nil && ctx.Err() != nil {
		return token{}, err // says nothing about the server: the next caller tries itself
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
	t.lastErr = err
	if err != nil {
		if ok, _ := Retryable(err); ok && cur.access != "" && cur.access != bad && t.now().Before(cur.expires) {
			t.log.Warn("the session's token could not be renewed yet and is used on", "expires", cur.expires, "error", err)
			t.cur.renew = t.now().Add(retryRefresh)
			t.lastErr = nil
			return cur, nil
		}
		return token{}, err
	}
	t.cur = next
	return next, nil
}

func (t *tokens) fresh(cur token, bad string) bool {
	return cur.access != "" && cur.access != bad && t.now().Before(cur.renew)
}

func (t *tokens) fetch(ctx context.Context, cur token, bad string, withKey bool) (token, error) {
	if cur.refresh != "" && !withKey {
		next, err := t.refresh(ctx, cur.refresh)
		if err == nil {
			if next.refresh == "" {
				next.refresh = cur.refresh
			}
			if next.access != bad {
				return next, nil
			}
		}
		var se *StatusError
		if err != nil && (!errors.As(err, &se) || se.Retryable()) {
			return token{}, err
		}
		t.log.Info("the session's refresh token is no longer accepted: logging in with the API key")
	}
	return t.login(ctx)
}

// newToken reads the answer of a token endpoint that was asked at the given time. The token's
// signature is the server's business: the node only reads its own id and the dates.
func newToken(access, refresh string, asked time.Time, ahead time.Duration) (token, error) {
	parts := strings.Split(access, ".")
	if len(parts) != 3 {
		return token{}, errors.New("the server sent an access token that is not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return token{}, fmt.Errorf("the server sent an access token that cannot be decoded: %w", err)
	}
	var claims struct {
		Sub json.RawMessage `json:"sub"`
		Exp float64         `json:"exp"`
		Iat float64         `json:"iat"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return token{}, fmt.Errorf("the server sent an access token with unreadable claims: %w", err)
	}
	node, err := strconv.ParseInt(string(bytes.Trim(claims.Sub, `"`)), 10, 64)
	if err != nil || node <= 0 {
		return token{}, fmt.Errorf("the server sent an access token for %.40s, which is not a node id", claims.Sub)
	}
	// The life is taken from the token and counted from when it was asked for, so that a clock
	// which differs from the server's does no harm. Wall clock: a suspended machine ages too.
	life := 24 * time.Hour
	if claims.Exp > 0 && claims.Iat > 0 {
		life = time.Duration(min(max(claims.Exp-claims.Iat, 1), 365*24*3600) * float64(time.Second))
	}
	start := asked.Round(0)
	return token{
		access:  access,
		refresh: refresh,
		node:    node,
		expires: start.Add(life),
		renew:   start.Add(life - min(ahead, life/2)),
	}, nil
}
