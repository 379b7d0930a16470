package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	perPage  = 100    // the server's own default is 10; one that ignores the wish is paged through
	maxPages = 10_000 // against a server whose list has no end
)

// wireRun is a run as the server writes it, with or without its task.
type wireRun struct {
	ID         int64    `json:"id"`
	Status     string   `json:"status"`
	Input      *string  `json:"input"`
	StartedAt  wireTime `json:"started_at"`
	FinishedAt wireTime `json:"finished_at"`
	Blob       bool     `json:"blob_storage_used"`
	Org        *ref     `json:"organization"`
	Task       struct {
		ID        int64  `json:"id"`
		Name      string `json:"name"`
		Image     string `json:"image"`
		JobID     int64  `json:"job_id"`
		Databases []struct {
			Label      string          `json:"label"`
			Parameters json.RawMessage `json:"parameters"`
		} `json:"databases"`
		Collaboration *ref `json:"collaboration"`
		InitOrg       *ref `json:"init_org"`
		InitUser      *ref `json:"init_user"`
		Parent        *ref `json:"parent"`
		Study         *ref `json:"study"`
		Store         *ref `json:"algorithm_store"`
	} `json:"task"`
}

func (w *wireRun) run() *Run {
	r := &Run{
		ID: w.ID, TaskID: w.Task.ID, JobID: w.Task.JobID, ParentID: w.Task.Parent.id(),
		OrganizationID: w.Org.id(), CollaborationID: w.Task.Collaboration.id(),
		InitOrganizationID: w.Task.InitOrg.id(), InitUserID: w.Task.InitUser.id(),
		StudyID: w.Task.Study.id(), StoreID: w.Task.Store.id(),
		Image: w.Task.Image, TaskName: w.Task.Name, Status: w.Status, BlobStored: w.Blob,
		StartedAt: w.StartedAt.t, FinishedAt: w.FinishedAt.t,
	}
	if w.Input != nil {
		r.Input = *w.Input
	}
	for _, d := range w.Task.Databases {
		r.Databases = append(r.Databases, Database{Label: d.Label, Parameters: parameters(d.Parameters)})
	}
	return r
}

// parameters are a JSON text inside a JSON string, or null; an object in place is read too.
func parameters(raw json.RawMessage) string {
	var s string
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// OpenRuns implements API.
func (v *V4) OpenRuns(ctx context.Context, taskID int64) ([]*Run, error) {
	id := v.identity.Load()
	if id == nil {
		return nil, ErrNotConnected
	}
	q := url.Values{
		"state":    {"open"},
		"node_id":  {strconv.FormatInt(id.NodeID, 10)},
		"include":  {"task"},
		"per_page": {strconv.Itoa(perPage)},
	}
	if taskID != 0 {
		q.Set("task_id", strconv.FormatInt(taskID, 10))
	}
	var runs []*Run
	known := map[int64]bool{} // a run moves to the next page when new ones appear
	for page := 1; page <= maxPages; page++ {
		if page > 1 {
			q.Set("page", strconv.Itoa(page))
		}
		var p runPage
		err := v.do(ctx, call{method: http.MethodGet, path: "/run", query: q, large: true, out: func(r io.Reader) error {
			p = runPage{}
			return p.read(r, v.maxRun)
		}})
		var se *StatusError
		if page > 1 && errors.As(err, &se) && (se.Code == http.StatusBadRequest || se.Code == http.StatusNotFound) {
			return runs, nil // the list has become shorter while it was read
		}
		if err != nil {
			return nil, err
		}
		for _, r := range p.runs {
			if !known[r.ID] {
				known[r.ID] = true
				runs = append(runs, r)
			}
		}
		if !p.more || len(p.runs) == 0 {
			return runs, nil
		}
	}
	return nil, fmt.Errorf("%w: the list of open runs has more than %d pages", ErrTooLarge, maxPages)
}

// runPage is one page of a list of runs, read run by run so that each is bounded by itself.
type runPage struct {
	runs []*Run
	more bool
}

func (p *runPage) read(r io.Reader, maxRun int64) error {
	limit := &capped{r: r, left: smallAnswer}
	dec := json.NewDecoder(limit)
	if err := expect(dec, json.Delim('{')); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		limit.left = smallAnswer
		switch key {
		case "data":
			if err := p.readData(dec, limit, maxRun); err != nil {
				return err
			}
		case "links":
			var links struct {
				Next string `json:"next"`
			}
			if err := dec.Decode(&links); err != nil {
				return err
			}
			p.more = links.Next != ""
		default:
			var skipped json.RawMessage
			if err := dec.Decode(&skipped); err != nil {
				return err
			}
		}
	}
	return expect(dec, json.Delim('}'))
}

func (p *runPage) readData(dec *json.Decoder, limit *capped, maxRun int64) error {
	if err := expect(dec, json.Delim('[')); err != nil {
		return err
	}
	for {
		limit.left = maxRun
		if !dec.More() {
			break
		}
		if len(p.runs) >= 100*perPage {
			return fmt.Errorf("%w: a page of more than %d runs", ErrTooLarge, 100*perPage)
		}
		var w wireRun
		if err := dec.Decode(&w); err != nil {
			return err
		}
		if w.ID <= 0 || w.Task.ID <= 0 {
			return errors.New("a run without its id or its task's")
		}
		p.runs = append(p.runs, w.run())
	}
	return expect(dec, json.Delim(']'))
}

func expect(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("found %v instead of %v", t, want)
	}
	return nil
}

// Run implements API.
func (v *V4) Run(ctx context.Context, id int64) (*Run, error) {
	var w wireRun
	err := v.do(ctx, call{
		method: http.MethodGet, path: fmt.Sprintf("/run/%d", id), query: url.Values{"include": {"task"}}, large: true,
		out: func(r io.Reader) error {
			w = wireRun{}
			return json.NewDecoder(&capped{r: r, left: v.maxRun}).Decode(&w)
		},
	})
	if err != nil {
		return nil, aboutRun(id, err)
	}
	return w.run(), nil
}

// MarkStarted implements API.
func (v *V4) MarkStarted(ctx context.Context, runID int64, at time.Time) error {
	return v.patchRun(ctx, runID, map[string]string{"started_at": formatTime(at)})
}

// MarkActive implements API.
func (v *V4) MarkActive(ctx context.Context, runID int64) error {
	return v.patchRun(ctx, runID, map[string]string{"status": string(StatusActive)})
}

func (v *V4) patchRun(ctx context.Context, runID int64, fields map[string]string) error {
	b, err := jsonBody(fields)
	if err != nil {
		return err
	}
	return aboutRun(runID, v.do(ctx, call{method: http.MethodPatch, path: fmt.Sprintf("/run/%d", runID), body: b}))
}

// aboutRun recognizes what the server says about a run itself: that it is finished,
// or not there. Gateways speak JSON too, so that a 404 which does not name the run
// is not taken for the server's own.
func aboutRun(id int64, err error) error {
	var se *StatusError
	if !errors.As(err, &se) || !strings.HasSuffix(se.Path, fmt.Sprintf("/run/%d", id)) {
		return err
	}
	msg := strings.ToLower(se.Msg)
	switch {
	case se.Code == http.StatusBadRequest && strings.Contains(msg, "already finished"):
		return fmt.Errorf("%w: %w", ErrAlreadyFinished, err)
	case se.Code == http.StatusNotFound && se.Own && strings.HasPrefix(msg, fmt.Sprintf("run id=%d not found", id)):
		return fmt.Errorf("%w: %w", ErrNoRun, err)
	case se.Code == http.StatusNotFound:
		foreign := *se
		foreign.Own = false
		return &foreign
	}
	return err
}

// ContainerToken implements API.
func (v *V4) ContainerToken(ctx context.Context, taskID int64, image string) (string, error) {
	b, err := jsonBody(struct {
		TaskID int64  `json:"task_id"`
		Image  string `json:"image"`
	}{taskID, image})
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"container_token"`
	}
	if err := v.do(ctx, call{method: http.MethodPost, path: "/token/container", body: b, out: into(&answer)}); err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", errors.New("the server answered without a container token")
	}
	return answer.Token, nil
}

// ReleasePorts implements API.
func (v *V4) ReleasePorts(ctx context.Context, runID int64) error {
	q := url.Values{"run_id": {strconv.FormatInt(runID, 10)}}
	return v.do(ctx, call{method: http.MethodDelete, path: "/port", query: q})
}
