package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP answers one request of the algorithm.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	ans := newAnswer(w, a.lim.writeStall)
	a.limitBody(ans, r)
	defer func() {
		if b, ok := r.Body.(*body); ok {
			b.linger()
		}
		fault := recover()
		if fault != nil && fault != http.ErrAbortHandler {
			a.log.Error("the proxy failed", "panic", fault, "stack", string(debug.Stack()))
			if !ans.sent {
				ans.fail(errors.New("panic"))
				fault = nil
			}
		}
		a.log.DebugContext(r.Context(), "proxy request",
			"method", short(r.Method), "path", short(r.URL.Path), "status", ans.status, "bytes", ans.bytes,
			"duration", time.Since(start), "broken", fault != nil)
		if fault != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	if err := a.serve(ans, r); err != nil {
		a.fail(ans, r, err)
		return
	}
	_ = ans.finish() // the algorithm is gone; nobody to tell
}

// fail answers with err and logs what the answer keeps back.
func (a *API) fail(ans *answer, r *http.Request, err error) {
	if r.Context().Err() == nil && !errors.Is(err, errGone) {
		var refused *refusal
		if own := errors.As(err, &refused) && refused.status < 500; !own {
			a.log.WarnContext(r.Context(), "proxy request failed", "method", short(r.Method), "path", short(r.URL.Path), "error", err)
		}
	}
	ans.fail(err)
}

// short cuts what a hostile algorithm would have logged.
func short(s string) string { return s[:min(len(s), 200)] }

func (a *API) serve(w *answer, r *http.Request) error {
	if err := checkRequest(r); err != nil {
		return err
	}
	if err := a.checkToken(r); err != nil {
		return err
	}
	if err := a.acquire(r.Context(), a.slots, "too many requests under way at once"); err != nil {
		return err
	}
	defer func() { <-a.slots }()
	if b, ok := r.Body.(*body); ok && r.ContentLength > b.left {
		return errTooLong
	}

	path := strings.TrimSuffix(r.URL.Path, "/")
	switch first, rest, _ := strings.Cut(path[1:], "/"); {
	case first == "task" && rest == "" && r.Method == http.MethodPost:
		return a.createTask(w, r)
	case first == "task" && r.Method == http.MethodGet && a.tasks != nil:
		if id, ok := statusOf(rest); ok {
			return a.taskStatus(w, r, id)
		}
	case first == "result" && rest == "" && r.Method == http.MethodGet:
		if r.URL.Query().Get("task_id") == "" {
			return refuse(http.StatusBadRequest, "Missing task_id: ask for the results of one task, /result?task_id=ID.")
		}
		return a.results(w, r)
	case first == "result" && r.Method == http.MethodGet:
		return a.results(w, r)
	case first == "blobstream" && rest == "" && r.Method == http.MethodPost:
		return a.putBlob(w, r)
	case first == "blobstream" && rest != "" && rest != "status" && !strings.Contains(rest, "/") && r.Method == http.MethodGet:
		return a.getBlob(w, r)
	}
	return a.forward(w, r)
}

// statusOf returns the task of "ID/status".
func statusOf(rest string) (int64, bool) {
	text, ok := strings.CutSuffix(rest, "/status")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil && id > 0
}

// acquire takes one of the run's places. tooMany says what there is too much of when
// none becomes free.
func (a *API) acquire(ctx context.Context, places chan struct{}, tooMany string) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(a.lim.queue)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errGone
	case <-t.C:
		return refuse(http.StatusServiceUnavailable, "This run has "+tooMany+" ("+strconv.Itoa(cap(places))+" are allowed).")
	}
}

// checkToken lets only this run's token pass. The comparison takes the same
// time whatever is wrong with the token.
func (a *API) checkToken(r *http.Request) error {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return refuse(http.StatusUnauthorized, "Missing Authorization header: send the run's container token as Bearer.")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	sum := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(sum[:], a.digest[:]) != 1 || len(values) != 1 || !strings.EqualFold(scheme, "Bearer") {
		return refuse(http.StatusForbidden, "This is not the container token of the run that this proxy serves.")
	}
	return nil
}
