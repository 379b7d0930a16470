package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// V4 is the dialect of vantage6 servers of version 4.
type V4 struct {
	base     *url.URL
	socket   *url.URL
	http     *http.Client
	agent    string
	apiKey   string
	log      *slog.Logger
	poll     time.Duration
	maxRun   int64
	timing   Timing
	now      func() time.Time
	tokens   *tokens
	identity atomic.Pointer[Identity]
	out      *outbox
}

var _ API = (*V4)(nil)

// NewV4 checks the configuration and reads ca_file; it does not contact the server.
func NewV4(c Config) (*V4, error) {
	base, socket, err := addresses(c)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(c.APIKey) == "" {
		return nil, errors.New("api_key is missing: set it to the key that the server gave for this node")
	}
	transport, err := newTransport(c.CAFile)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.PollInterval <= 0 {
		c.PollInterval = 30 * time.Second
	}
	if c.MaxRun <= 0 {
		c.MaxRun = 1 << 30
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	v := &V4{
		base:   base,
		socket: socket,
		http:   newClient(transport),
		agent:  "v6node/" + c.Version,
		apiKey: strings.TrimSpace(c.APIKey),
		log:    c.Log,
		poll:   c.PollInterval,
		maxRun: c.MaxRun,
		timing: c.Timing.withDefaults(),
		now:    time.Now,
		out:    newOutbox(),
	}
	v.tokens = newTokens(v.login, v.refresh, func() time.Time { return v.now() }, c.Log)
	return v, nil
}

// Close gives up idle connections. Call it when nothing uses the server any more.
func (v *V4) Close() { v.http.CloseIdleConnections() }

// Upstream implements API.
func (v *V4) Upstream() (*url.URL, *http.Client) {
	u := *v.base
	return &u, v.http
}

// login gets a token with the API key.
func (v *V4) login(ctx context.Context) (token, error) {
	b, err := jsonBody(map[string]string{"api_key": v.apiKey})
	if err != nil {
		return token{}, err
	}
	t, err := v.token(ctx, call{method: http.MethodPost, path: "/token/node", body: b}, "")
	var se *StatusError
	if errors.As(err, &se) && se.Code == http.StatusUnauthorized && strings.Contains(strings.ToLower(se.Msg), "api key") {
		return token{}, fmt.Errorf("%w: check api_key, or make a new one for this node: %w", ErrBadAPIKey, err)
	}
	return t, err
}

// refresh gets a token with the refresh token.
func (v *V4) refresh(ctx context.Context, refreshToken string) (token, error) {
	return v.token(ctx, call{method: http.MethodPost, path: "/token/refresh"}, refreshToken)
}

func (v *V4) token(ctx context.Context, c call, bearer string) (token, error) {
	var answer struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	c.out = into(&answer)
	asked := v.now()
	if err := v.attempt(ctx, c, bearer); err != nil {
		return token{}, err
	}
	return newToken(answer.Access, answer.Refresh, asked, v.timing.RefreshAhead)
}

// ref is how the server names another object.
type ref struct {
	ID int64 `json:"id"`
}

// id of a reference that may be null.
func (r *ref) id() int64 {
	if r == nil {
		return 0
	}
	return r.ID
}

// Connect implements API.
func (v *V4) Connect(ctx context.Context) (*Identity, error) {
	t, err := v.tokens.get(ctx, "", false)
	if err != nil {
		return nil, err
	}
	var node struct {
		ID            int64  `json:"id"`
		Name          string `json:"name"`
		Organization  *ref   `json:"organization"`
		Collaboration *ref   `json:"collaboration"`
	}
	if err := v.get(ctx, fmt.Sprintf("/node/%d", t.node), &node); err != nil {
		return nil, err
	}
	if node.Organization.id() == 0 || node.Collaboration.id() == 0 {
		return nil, fmt.Errorf("the server has node %d without organization or collaboration: register the node again", t.node)
	}
	var org struct {
		Name string  `json:"name"`
		Key  *string `json:"public_key"`
	}
	if err := v.get(ctx, fmt.Sprintf("/organization/%d", node.Organization.ID), &org); err != nil {
		return nil, err
	}
	var collab struct {
		Name      string `json:"name"`
		Encrypted bool   `json:"encrypted"`
	}
	if err := v.get(ctx, fmt.Sprintf("/collaboration/%d", node.Collaboration.ID), &collab); err != nil {
		return nil, err
	}
	id := &Identity{
		NodeID:            t.node,
		OrganizationID:    node.Organization.ID,
		CollaborationID:   node.Collaboration.ID,
		NodeName:          node.Name,
		OrganizationName:  org.Name,
		CollaborationName: collab.Name,
		Encrypted:         collab.Encrypted,
	}
	if org.Key != nil {
		id.OrganizationKey = *org.Key
	}
	v.identity.Store(id)
	copied := *id
	return &copied, nil
}

func (v *V4) get(ctx context.Context, path string, answer any) error {
	return v.do(ctx, call{method: http.MethodGet, path: path, out: into(answer)})
}

// OrganizationKey implements API.
func (v *V4) OrganizationKey(ctx context.Context, id int64) (string, error) {
	var org struct {
		Key *string `json:"public_key"`
	}
	if err := v.get(ctx, fmt.Sprintf("/organization/%d", id), &org); err != nil {
		return "", err
	}
	if org.Key == nil {
		return "", nil
	}
	return *org.Key, nil
}

// OrganizationName implements API.
func (v *V4) OrganizationName(ctx context.Context, id int64) (string, error) {
	var org struct {
		Name string `json:"name"`
	}
	err := v.get(ctx, fmt.Sprintf("/organization/%d", id), &org)
	return org.Name, err
}

// StoreAddresses implements API.
func (v *V4) StoreAddresses(ctx context.Context, id int64) ([]string, error) {
	var store struct {
		URL     string  `json:"url"`
		APIPath *string `json:"api_path"`
	}
	if err := v.get(ctx, fmt.Sprintf("/algorithmstore/%d", id), &store); err != nil {
		return nil, err
	}
	out := []string{store.URL}
	if store.APIPath != nil && strings.Trim(*store.APIPath, "/") != "" {
		out = append(out, strings.TrimRight(store.URL, "/")+"/"+strings.Trim(*store.APIPath, "/"))
	}
	return out, nil
}

// SetOrganizationKey implements API.
func (v *V4) SetOrganizationKey(ctx context.Context, id int64, key string) error {
	b, err := jsonBody(map[string]string{"public_key": key})
	if err != nil {
		return err
	}
	return v.do(ctx, call{method: http.MethodPatch, path: fmt.Sprintf("/organization/%d", id), body: b})
}
