package standin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/v6node/v6node/proxy/e2e"
)

// APIError is an answer of the server that is no success.
type APIError struct {
	Code int
	Msg  string
}

func (e *APIError) Error() string { return fmt.Sprintf("the server answered %d: %s", e.Code, e.Msg) }

// Researcher is the user side of a vantage6 v4 server, over real HTTP: with any
// server, not only the stand-in. Its methods may be called from any goroutine.
type Researcher struct {
	base           string // with the API path
	name, password string
	key            *e2e.PrivateKey
	http           *http.Client
	org            int64

	mu    sync.Mutex
	token string
	plain map[int64]bool // collaborations that are not encrypted
	keys  map[int64]*e2e.PublicKey
}

// NewResearcher logs a user in at the API address (with API path). key is the
// private key of the user's organization, needed in encrypted collaborations; its
// public half is published when the organization has none yet, and must be the
// published one otherwise.
func NewResearcher(ctx context.Context, apiURL, user, password string, key *e2e.PrivateKey) (*Researcher, error) {
	r := &Researcher{
		base: strings.TrimRight(apiURL, "/"), name: user, password: password, key: key,
		http:  &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 32}},
		plain: map[int64]bool{}, keys: map[int64]*e2e.PublicKey{},
	}
	userURL, err := r.login(ctx)
	if err != nil {
		return nil, fmt.Errorf("logging in as %s: %w", user, err)
	}
	var me struct {
		Organization struct {
			ID int64 `json:"id"`
		} `json:"organization"`
	}
	id := userURL[strings.LastIndexByte(userURL, '/')+1:]
	if err := r.get(ctx, "/user/"+id, &me); err != nil {
		return nil, fmt.Errorf("asking for the user: %w", err)
	}
	r.org = me.Organization.ID
	if key == nil {
		return r, nil
	}
	return r, r.publishKey(ctx)
}

func (r *Researcher) publishKey(ctx context.Context) error {
	path := fmt.Sprintf("/organization/%d", r.org)
	var o struct {
		PublicKey string `json:"public_key"`
	}
	if err := r.get(ctx, path, &o); err != nil {
		return fmt.Errorf("asking for the organization's public key: %w", err)
	}
	if o.PublicKey == "" {
		if err := r.do(ctx, http.MethodPatch, path, object{"public_key": r.key.Public().Base64()}, nil); err != nil {
			return fmt.Errorf("publishing the organization's public key: %w", err)
		}
		return nil
	}
	published, err := e2e.ParsePublicKey(o.PublicKey)
	if err != nil {
		return fmt.Errorf("reading the organization's public key: %w", err)
	}
	if !published.Equal(r.key.Public()) {
		return errors.New("the organization's public key on the server belongs to another private key: use that one")
	}
	return nil
}

// Close drops idle connections.
func (r *Researcher) Close() { r.http.CloseIdleConnections() }

// Organization returns the number of the user's organization.
func (r *Researcher) Organization() int64 { return r.org }

// TaskSpec describes a task to create.
type TaskSpec struct {
	Name, Description, Image    string
	Collaboration, Study, Store int64 // Study and Store: 0 = none
	Organizations               []int64
	Method                      string
	Args                        []any
	Kwargs                      map[string]any
	Databases                   []DatabaseSpec
	// RawInputs replaces the input of an organization; it is sent as it is, neither
	// encoded nor encrypted.
	RawInputs map[int64]string
}

// DatabaseSpec names a database of the nodes and how to read it.
type DatabaseSpec struct {
	Label         string `json:"label"`
	Query         string `json:"query,omitempty"`
	SheetName     string `json:"sheet_name,omitempty"`
	Preprocessing []any  `json:"preprocessing,omitempty"`
}

// CreateTask encrypts the input for each organization where the collaboration wants
// it, posts the task and returns its number.
func (r *Researcher) CreateTask(ctx context.Context, t TaskSpec) (int64, error) {
	input := object{"method": t.Method}
	if t.Args != nil {
		input["args"] = t.Args
	}
	if t.Kwargs != nil {
		input["kwargs"] = t.Kwargs
	}
	plain, err := json.Marshal(input)
	if err != nil {
		return 0, fmt.Errorf("the task's arguments are not JSON: %w", err)
	}
	blobs, err := r.blobStore(ctx)
	if err != nil {
		return 0, err
	}
	encrypted, err := r.encrypted(ctx, t.Collaboration)
	if err != nil {
		return 0, err
	}
	var orgs []object
	for _, id := range t.Organizations {
		text, raw := t.RawInputs[id]
		if !raw {
			if text, err = r.input(ctx, id, plain, encrypted, blobs); err != nil {
				return 0, fmt.Errorf("preparing the input of organization %d: %w", id, err)
			}
		}
		orgs = append(orgs, object{"id": id, "input": text})
	}
	body := object{
		"name": t.Name, "description": t.Description, "image": t.Image, "collaboration_id": t.Collaboration,
		"organizations": orgs, "databases": append([]DatabaseSpec{}, t.Databases...),
	}
	if t.Study != 0 {
		body["study_id"] = t.Study
	}
	if t.Store != 0 {
		body["store_id"] = t.Store
	}
	var created struct {
		ID int64 `json:"id"`
	}
	if err := r.do(ctx, http.MethodPost, "/task", body, &created); err != nil {
		return 0, fmt.Errorf("creating the task: %w", err)
	}
	return created.ID, nil
}

// input makes one organization's input in the form that server and collaboration
// want.
func (r *Researcher) input(ctx context.Context, org int64, plain []byte, encrypted, blobs bool) (string, error) {
	var key *e2e.PublicKey
	if encrypted {
		var err error
		if key, err = r.PublicKey(ctx, org); err != nil {
			return "", err
		}
	}
	switch {
	case blobs:
		return r.StoreBlob(ctx, key, func() io.Reader { return bytes.NewReader(plain) })
	case encrypted:
		return key.Encrypt(plain)
	}
	return base64.StdEncoding.EncodeToString(plain), nil
}

// StoreBlob uploads what content reads anew for each attempt, encrypted for key, or in the form for open
// collaborations where that is nil, and returns its UUID. Memory is constant.
func (r *Researcher) StoreBlob(ctx context.Context, key *e2e.PublicKey, content func() io.Reader) (string, error) {
	var stored struct {
		UUID string `json:"uuid"`
	}
	_, err := r.attempt(ctx, &stored, func() (*http.Request, error) {
		sealed := e2e.EncodeBlob(content())
		if key != nil {
			var err error
			if sealed, err = key.EncryptBlob(content()); err != nil {
				return nil, err
			}
		}
		req, err := r.request(ctx, http.MethodPost, "/blobstream", sealed)
		if err == nil {
			req.Header.Set("Content-Type", "application/octet-stream")
		}
		return req, err
	})
	return stored.UUID, err
}

// ReadBlob writes the content of a blob to w. Memory is constant.
func (r *Researcher) ReadBlob(ctx context.Context, id string, encrypted bool, w io.Writer) error {
	req, err := r.request(ctx, http.MethodGet, "/blobstream/"+url.PathEscape(id), nil)
	if err != nil {
		return err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := failure(resp); err != nil {
		return err
	}
	plain := e2e.DecodeBlob(resp.Body)
	if encrypted {
		if plain, err = r.key.DecryptBlob(resp.Body); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, plain)
	return err
}

// PublicKey is an organization's public key, which its node has published.
func (r *Researcher) PublicKey(ctx context.Context, org int64) (*e2e.PublicKey, error) {
	r.mu.Lock()
	key := r.keys[org]
	r.mu.Unlock()
	if key != nil {
		return key, nil
	}
	var o struct {
		PublicKey string `json:"public_key"`
	}
	if err := r.get(ctx, fmt.Sprintf("/organization/%d", org), &o); err != nil {
		return nil, err
	}
	if o.PublicKey == "" {
		return nil, fmt.Errorf("organization %d has no public key yet: start its node once", org)
	}
	key, err := e2e.ParsePublicKey(o.PublicKey)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.keys[org] = key
	r.mu.Unlock()
	return key, nil
}

func (r *Researcher) encrypted(ctx context.Context, collab int64) (bool, error) {
	r.mu.Lock()
	plain, known := r.plain[collab]
	r.mu.Unlock()
	if known {
		return !plain, nil
	}
	var c struct {
		Encrypted bool `json:"encrypted"`
	}
	if err := r.get(ctx, fmt.Sprintf("/collaboration/%d", collab), &c); err != nil {
		return false, fmt.Errorf("asking for the collaboration: %w", err)
	}
	r.mu.Lock()
	r.plain[collab] = !c.Encrypted
	r.mu.Unlock()
	return c.Encrypted, nil
}

func (r *Researcher) blobStore(ctx context.Context) (bool, error) {
	var b struct {
		Enabled bool `json:"blob_store_enabled"`
	}
	if err := r.get(ctx, "/blobstream/status", &b); err != nil {
		return false, fmt.Errorf("asking for the blob store: %w", err)
	}
	return b.Enabled, nil
}

// WaitTask waits until a task has finished and returns its status. The stand-in
// holds each request until then; at another server it polls with growing pauses.
func (r *Researcher) WaitTask(ctx context.Context, id int64) (string, error) {
	pause := 250 * time.Millisecond
	for {
		var t struct {
			Status string `json:"status"`
		}
		header, err := r.attempt(ctx, &t, func() (*http.Request, error) {
			req, err := r.request(ctx, http.MethodGet, fmt.Sprintf("/task/%d/status", id), nil)
			if err == nil {
				req.Header.Set("Prefer", "wait=20")
			}
			return req, err
		})
		if err != nil {
			return "", fmt.Errorf("waiting for task %d: %w", id, err)
		}
		if Finished(t.Status) {
			return t.Status, nil
		}
		if header.Get("Preference-Applied") != "" {
			continue
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
			pause = min(pause*3/2, 10*time.Second)
		case <-ctx.Done():
			wait.Stop()
			return t.Status, ctx.Err()
		}
	}
}

// Result is one organization's part of a finished task.
type Result struct {
	RunID, OrganizationID int64
	Status, Log           string
	Data                  []byte // decrypted; nil when there is none
}

// Results returns the results of a task, decrypted, in ascending order of runs.
func (r *Researcher) Results(ctx context.Context, taskID int64) ([]Result, error) {
	byID := map[int64]*Result{}
	var order []int64
	if err := r.pages(ctx, fmt.Sprintf("/run?task_id=%d", taskID), func(data json.RawMessage) error {
		var v struct {
			ID           int64  `json:"id"`
			Status       string `json:"status"`
			Log          string `json:"log"`
			Organization struct {
				ID int64 `json:"id"`
			} `json:"organization"`
		}
		if err := json.Unmarshal(data, &v); err != nil {
			return err
		}
		order = append([]int64{v.ID}, order...) // pages are newest first
		byID[v.ID] = &Result{RunID: v.ID, OrganizationID: v.Organization.ID, Status: v.Status, Log: v.Log}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("listing the runs of task %d: %w", taskID, err)
	}
	var t struct {
		Collaboration struct {
			ID int64 `json:"id"`
		} `json:"collaboration"`
	}
	if err := r.get(ctx, fmt.Sprintf("/task/%d", taskID), &t); err != nil {
		return nil, fmt.Errorf("asking for task %d: %w", taskID, err)
	}
	encrypted, err := r.encrypted(ctx, t.Collaboration.ID)
	if err != nil {
		return nil, err
	}
	if err := r.pages(ctx, fmt.Sprintf("/result?task_id=%d", taskID), func(data json.RawMessage) error {
		var v struct {
			ID     int64  `json:"id"`
			Result string `json:"result"`
			Blob   bool   `json:"blob_storage_used"`
		}
		if err := json.Unmarshal(data, &v); err != nil {
			return err
		}
		res := byID[v.ID]
		if res == nil || v.Result == "" {
			return nil
		}
		plain, err := r.open(ctx, v.Result, v.Blob, encrypted)
		if err != nil {
			return fmt.Errorf("result of run %d: %w", v.ID, err)
		}
		res.Data = plain
		return nil
	}); err != nil {
		return nil, fmt.Errorf("fetching the results of task %d: %w", taskID, err)
	}
	list := make([]Result, 0, len(order))
	for _, id := range order {
		list = append(list, *byID[id])
	}
	return list, nil
}

// open decodes one result.
func (r *Researcher) open(ctx context.Context, text string, blob, encrypted bool) ([]byte, error) {
	if encrypted && r.key == nil {
		return nil, errors.New("the collaboration is encrypted and no private key was given")
	}
	if blob {
		var content bytes.Buffer
		err := r.ReadBlob(ctx, text, encrypted, &content)
		return content.Bytes(), err
	}
	if encrypted {
		return r.key.Decrypt(text)
	}
	return base64.StdEncoding.DecodeString(text)
}

// Kill kills a task and its subtasks.
func (r *Researcher) Kill(ctx context.Context, taskID int64) error {
	return r.do(ctx, http.MethodPost, "/kill/task", object{"id": taskID}, nil)
}

// DeleteTask removes a task and its subtasks from the server.
func (r *Researcher) DeleteTask(ctx context.Context, taskID int64) error {
	return r.send(ctx, http.MethodDelete, fmt.Sprintf("/task/%d", taskID), "", nil, nil)
}

// KillNode kills everything that runs on a node.
func (r *Researcher) KillNode(ctx context.Context, nodeID int64) error {
	return r.do(ctx, http.MethodPost, "/kill/node/tasks", object{"id": nodeID}, nil)
}

// pages calls fn for each element of a list, page by page.
func (r *Researcher) pages(ctx context.Context, path string, fn func(json.RawMessage) error) error {
	for page := 1; ; page++ {
		var list struct {
			Data  []json.RawMessage `json:"data"`
			Links struct {
				Next string `json:"next"`
			} `json:"links"`
		}
		if err := r.get(ctx, path+"&page="+strconv.Itoa(page), &list); err != nil {
			return err
		}
		for _, v := range list.Data {
			if err := fn(v); err != nil {
				return err
			}
		}
		if list.Links.Next == "" {
			return nil
		}
	}
}

func (r *Researcher) get(ctx context.Context, path string, into any) error {
	return r.send(ctx, http.MethodGet, path, "", nil, into)
}

func (r *Researcher) do(ctx context.Context, method, path string, body, into any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return r.send(ctx, method, path, "application/json", func() io.Reader { return bytes.NewReader(data) }, into)
}

// send makes a request whose body, if any, body returns anew for each attempt.
func (r *Researcher) send(ctx context.Context, method, path, contentType string, body func() io.Reader, into any) error {
	_, err := r.attempt(ctx, into, func() (*http.Request, error) {
		var content io.Reader
		if body != nil {
			content = body()
		}
		req, err := r.request(ctx, method, path, content)
		if err == nil && contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		return req, err
	})
	return err
}

// attempt performs a request, and a second time after a new login when the token
// had expired.
func (r *Researcher) attempt(ctx context.Context, into any, build func() (*http.Request, error)) (http.Header, error) {
	for again := false; ; again = true {
		req, err := build()
		if err != nil {
			return nil, err
		}
		header, err := r.answer(req, into)
		var refused *APIError
		if again || !errors.As(err, &refused) || refused.Code != http.StatusUnauthorized || refused.Msg != errTokenExpired.Error() {
			return header, err
		}
		if _, err := r.login(ctx); err != nil {
			return nil, err
		}
	}
}

func (r *Researcher) login(ctx context.Context) (userURL string, err error) {
	data, err := json.Marshal(object{"username": r.name, "password": r.password})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+"/token/user", bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	var t struct {
		AccessToken string `json:"access_token"`
		UserURL     string `json:"user_url"`
	}
	if _, err := r.answer(req, &t); err != nil {
		return "", err
	}
	r.mu.Lock()
	r.token = t.AccessToken
	r.mu.Unlock()
	return t.UserURL, nil
}

func (r *Researcher) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	req.Header.Set("Authorization", "Bearer "+r.token)
	return req, nil
}

// answer performs a request and decodes the JSON answer into into, if that is not
// nil.
func (r *Researcher) answer(req *http.Request, into any) (http.Header, error) {
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := failure(resp); err != nil {
		return nil, err
	}
	if into == nil {
		_, err = io.Copy(io.Discard, resp.Body) // so that the connection is used again
		return resp.Header, err
	}
	return resp.Header, json.NewDecoder(resp.Body).Decode(into)
}

func failure(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return &APIError{resp.StatusCode, "(the answer broke off)"}
	}
	var m struct {
		Msg    string          `json:"msg"`
		Errors json.RawMessage `json:"errors"`
	}
	if json.Unmarshal(text, &m) != nil {
		m.Msg = string(text)
	}
	if m.Errors != nil {
		m.Msg += " " + string(m.Errors)
	}
	return &APIError{resp.StatusCode, m.Msg}
}
