package contract

import (
	"bytes"
	"encoding/base64"
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

// Client talks to the vantage6 server through the node's proxy.
type Client struct {
	Identity *Identity
	base     string
	token    string
	http     *http.Client
}

// NewClient reads address and token of the proxy from the environment.
func NewClient() (*Client, error) {
	var address [3]string
	for i, name := range []string{"HOST", "PORT", "API_PATH"} {
		var err error
		if address[i], err = Variable(name); err != nil {
			return nil, err
		}
	}
	token, err := readNamed("TOKEN_FILE")
	if err != nil {
		return nil, err
	}
	id, err := ReadIdentity(string(token))
	if err != nil {
		return nil, err
	}
	return &Client{
		Identity: id, base: address[0] + ":" + address[1] + address[2], token: string(token),
		http: &http.Client{Timeout: time.Hour},
	}, nil
}

// Do makes any request. The caller closes the body of the response.
func (c *Client) Do(method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequest(method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	return c.http.Do(req)
}

// call makes a request with a JSON answer.
func (c *Client) call(method, path string, header http.Header, body io.Reader, into any) error {
	resp, err := c.Do(method, path, header, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // what arrived is better than nothing
		return fmt.Errorf("%s %s was answered with %d: %s", method, path, resp.StatusCode, bytes.TrimSpace(text))
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (c *Client) get(path string, into any) error {
	return c.call(http.MethodGet, path, nil, nil, into)
}

// Pages returns all elements of a list. The query must not be empty.
func Pages[T any](c *Client, path string, query url.Values) ([]T, error) {
	var all []T
	for page := 1; ; page++ {
		query.Set("page", strconv.Itoa(page))
		var list struct {
			Data  []T `json:"data"`
			Links struct {
				Next string `json:"next"`
			} `json:"links"`
		}
		if err := c.get(path+"?"+query.Encode(), &list); err != nil {
			return nil, err
		}
		all = append(all, list.Data...)
		if list.Links.Next == "" {
			return all, nil
		}
	}
}

// Organizations returns the numbers of the organizations of this task's study, or
// of its collaboration when there is no study.
func (c *Client) Organizations() ([]int64, error) {
	query := url.Values{}
	if c.Identity.StudyID != nil {
		query.Set("study_id", strconv.FormatInt(*c.Identity.StudyID, 10))
	} else {
		query.Set("collaboration_id", strconv.FormatInt(c.Identity.CollabID, 10))
	}
	list, err := Pages[struct {
		ID int64 `json:"id"`
	}](c, "/organization", query)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(list))
	for i, o := range list {
		ids[i] = o.ID
	}
	return ids, nil
}

// CreateTask creates a subtask with the same input for every organization and the
// databases of this task, and returns its number.
func (c *Client) CreateTask(name string, organizations []int64, input any) (int64, error) {
	plain, err := json.Marshal(input)
	if err != nil {
		return 0, err
	}
	var store struct {
		Enabled bool `json:"blob_store_enabled"`
	}
	if err := c.get("/blobstream/status", &store); err != nil {
		return 0, err
	}
	return c.createTask(name, organizations, func(id int64) (string, error) {
		if !store.Enabled {
			return base64.StdEncoding.EncodeToString(plain), nil
		}
		return c.upload(id, bytes.NewReader(plain))
	})
}

// CreateTaskFrom is CreateTask with an input that is read anew for each
// organization, at a server with a blob store.
func (c *Client) CreateTaskFrom(name string, organizations []int64, input func() io.Reader) (int64, error) {
	return c.createTask(name, organizations, func(id int64) (string, error) { return c.upload(id, input()) })
}

// createTask creates a subtask; input gives the text of each organization's input.
func (c *Client) createTask(name string, organizations []int64, input func(organization int64) (string, error)) (int64, error) {
	type target struct {
		ID    int64  `json:"id"`
		Input string `json:"input"`
	}
	var targets []target
	for _, id := range organizations {
		text, err := input(id)
		if err != nil {
			return 0, err
		}
		targets = append(targets, target{id, text})
	}
	order := map[string]any{
		"name": name, "image": c.Identity.Image, "collaboration_id": c.Identity.CollabID,
		"description": "created by " + name, "organizations": targets, "databases": c.Identity.Databases,
	}
	if c.Identity.StudyID != nil {
		order["study_id"] = *c.Identity.StudyID
	}
	if c.Identity.StoreID != nil {
		order["store_id"] = *c.Identity.StoreID
	}
	body, err := json.Marshal(order)
	if err != nil {
		return 0, err
	}
	var task struct {
		ID int64 `json:"id"`
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if err := c.call(http.MethodPost, "/task", header, bytes.NewReader(body), &task); err != nil {
		return 0, err
	}
	return task.ID, nil
}

// upload puts an input into the blob store; the proxy encrypts it for the
// organization.
func (c *Client) upload(organization int64, plain io.Reader) (string, error) {
	var o struct {
		PublicKey string `json:"public_key"`
	}
	if err := c.get(fmt.Sprintf("/organization/%d", organization), &o); err != nil {
		return "", err
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if o.PublicKey != "" {
		header.Set("X-Public-Key", o.PublicKey)
	}
	var stored struct {
		UUID string `json:"uuid"`
	}
	err := c.call(http.MethodPost, "/blobstream", header, plain, &stored)
	return stored.UUID, err
}

// Polling as the Python client does it. The node's proxy holds the request until
// the task has finished, so that the pauses hardly ever happen.
const (
	firstPause  = time.Second
	pauseGrowth = 1.5
	longestWait = 5 * time.Minute
)

// WaitTask waits until a task has finished. Any end but "completed" is an error.
func (c *Client) WaitTask(id int64) error {
	for pause := firstPause; ; pause = min(time.Duration(float64(pause)*pauseGrowth), longestWait) {
		var task struct {
			Status string `json:"status"`
		}
		if err := c.get(fmt.Sprintf("/task/%d/status", id), &task); err != nil {
			return err
		}
		switch task.Status {
		case "pending", "initializing", "active":
			time.Sleep(pause)
		case "completed":
			return nil
		default:
			return fmt.Errorf("subtask %d ended as %q", id, task.Status)
		}
	}
}

// Results decodes the results of a task, one for each organization.
func Results[T any](c *Client, taskID int64) ([]T, error) {
	var results []T
	err := c.EachResult(taskID, func(r io.Reader) error {
		var result T
		data, err := io.ReadAll(r)
		if err == nil {
			err = json.Unmarshal(data, &result)
		}
		results = append(results, result)
		return err
	})
	return results, err
}

// EachResult calls fn with the content of each result of a task.
func (c *Client) EachResult(taskID int64, fn func(io.Reader) error) error {
	list, err := Pages[struct {
		ID     int64  `json:"id"`
		Result string `json:"result"`
		Blob   bool   `json:"blob_storage_used"`
	}](c, "/result", url.Values{"task_id": {strconv.FormatInt(taskID, 10)}})
	if err != nil {
		return err
	}
	for _, r := range list {
		content, err := c.open(r.Result, r.Blob)
		if err == nil {
			err = errors.Join(fn(content), content.Close())
		}
		if err != nil {
			return fmt.Errorf("result %d cannot be used: %w", r.ID, err)
		}
	}
	return nil
}

func (c *Client) open(text string, blob bool) (io.ReadCloser, error) {
	if text == "" {
		return nil, errors.New("it is empty")
	}
	if !blob {
		return io.NopCloser(base64.NewDecoder(base64.StdEncoding, strings.NewReader(text))), nil
	}
	resp, err := c.Do(http.MethodGet, "/blobstream/"+url.PathEscape(text), nil, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the blob store answered %d", resp.StatusCode), resp.Body.Close())
	}
	return resp.Body, nil
}
