package proxy

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// maxStatusBody is what an answer to a status request may be long.
const maxStatusBody = 64 << 10

// unfinished are the task statuses that change by themselves. Every other one,
// also one that is not known here, is answered at once.
var unfinished = map[string]bool{"pending": true, "initializing": true, "active": true}

// taskStatus is GET /task/ID/status. Algorithms ask it again and again, and
// sleep longer each time; so while the task is not finished the request is held
// until that changes, for 20 s at most, and then answered with what the server
// said last.
func (a *API) taskStatus(w *answer, r *http.Request, id int64) error {
	// Subscribed before the first question: no change can fall between.
	changed, cancel := a.tasks.Subscribe(id)
	defer cancel()
	ctx := r.Context()
	hold := time.NewTimer(a.lim.hold)
	defer hold.Stop()

	c := call{method: http.MethodGet, path: r.URL.Path, query: r.URL.RawQuery, header: outgoing(r)}
	c.header.Del("Accept-Encoding")
	c.header.Del("If-None-Match")
	c.header.Del("If-Modified-Since")
	last, err := a.askStatus(ctx, c)
	if err != nil {
		return err
	}
	c.once = true
	// Some nodes announce the end of a run before the server knows of it; so
	// after an event the question is repeated, soon and then less often.
	pause := a.lim.poll
	for last.held {
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			again.Stop()
			return errGone
		case <-draining(ctx):
			again.Stop()
			return a.relayStatus(w, last)
		case <-hold.C:
			again.Stop()
			return a.relayStatus(w, last)
		case <-changed:
			again.Stop()
			pause = a.lim.soon
		case <-again.C:
			pause = min(2*pause, a.lim.poll)
		}
		now, err := a.askStatus(ctx, c)
		if ctx.Err() != nil {
			return errGone
		}
		if err == nil && now.resp.StatusCode < 500 {
			last = now
		}
	}
	return a.relayStatus(w, last)
}

// taskAnswer is a whole answer of the server to a status request.
type taskAnswer struct {
	resp *http.Response // body closed
	body []byte
	held bool // the task is not finished
}

func (a *API) askStatus(ctx context.Context, c call) (taskAnswer, error) {
	resp, err := a.ask(ctx, c)
	if err != nil {
		return taskAnswer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxStatusBody+1))
	if err != nil {
		return taskAnswer{}, err
	}
	if len(text) > maxStatusBody {
		return taskAnswer{}, errOdd
	}
	var task struct{ Status string }
	known := resp.StatusCode == http.StatusOK && json.Unmarshal(text, &task) == nil
	return taskAnswer{resp: resp, body: text, held: known && unfinished[task.Status]}, nil
}

func (a *API) relayStatus(w *answer, t taskAnswer) error {
	if err := a.relayHeader(w, t.resp); err != nil {
		return err
	}
	w.Header().Del("Content-Length")
	_, err := w.Write(t.body)
	return err
}
