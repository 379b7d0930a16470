package oras

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/v6node/v6node/sif/reference"
)

// LayerType is the media type of a SIF file in a registry.
const LayerType = "application/vnd.sylabs.sif.layer.v1.sif"

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	maxManifest  = 1 << 20 // that of a SIF file has less than 1 KiB
)

var sha256Digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Options of a client.
type Options struct {
	// Login gives the credentials for a repository of a registry; "" and "" is none. May be nil.
	Login func(registry, repository string) (username, password string)
	// Transport gives what makes the requests to a registry, and to where it redirects.
	// Default: http.DefaultTransport.
	Transport func(registry string) http.RoundTripper
	// MaxBytes is how large a file may be. Default: 256 GiB.
	MaxBytes int64
	// Stall is how long a download may bring nothing before it is tried again.
	// Default: 1 minute.
	Stall time.Duration
	// Attempts is how often in a row a download may bring nothing. Default: 5.
	Attempts int
}

// Client speaks to registries. It holds nothing that needs closing, and may be used by
// many goroutines.
type Client struct{ o Options }

// New makes a client.
func New(o Options) *Client {
	if o.Transport == nil {
		o.Transport = func(string) http.RoundTripper { return http.DefaultTransport }
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 30
	}
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
	if o.Attempts <= 0 {
		o.Attempts = 5
	}
	return &Client{o}
}

// Artifact is a SIF file in a registry.
type Artifact struct {
	Reference reference.Reference // as asked for
	Manifest  string              // the digest of the artifact's manifest
	Digest    string              // the digest of the SIF file
	Size      int64               // of the SIF file
}

// Resolve finds out what a reference means. Its errors are of one of the kinds in this
// package, or ctx's.
func (c *Client) Resolve(ctx context.Context, r reference.Reference) (Artifact, error) {
	a, err := c.resolve(ctx, r)
	if err != nil && ctx.Err() != nil {
		return Artifact{}, ctx.Err()
	}
	if err != nil {
		return Artifact{}, fmt.Errorf("look up %s: %w", r, err)
	}
	return a, nil
}

func (c *Client) resolve(ctx context.Context, r reference.Reference) (Artifact, error) {
	session, err := c.open(ctx, r)
	if err != nil {
		return Artifact{}, err
	}
	identifier := r.Digest
	if identifier == "" {
		identifier = r.Tag
	}
	resp, err := session.get(ctx, "manifests/"+identifier, http.Header{"Accept": {manifestType}})
	if err != nil {
		return Artifact{}, kindOf(err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return Artifact{}, kindOf(err)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return Artifact{}, kindOf(err)
	}
	if len(b) > maxManifest {
		return Artifact{}, fmt.Errorf("%w: its manifest has more than %d bytes", ErrNotSIF, maxManifest)
	}
	sum := sha256.Sum256(b)
	a := Artifact{Reference: r, Manifest: "sha256:" + hex.EncodeToString(sum[:])}
	if r.Digest != "" && a.Manifest != r.Digest {
		return Artifact{}, fmt.Errorf("%w: a manifest with the digest %s", ErrDigest, a.Manifest)
	}
	return a, c.read(b, &a)
}

// read finds the SIF file in a manifest.
func (c *Client) read(b []byte, a *Artifact) error {
	var m struct {
		Layers []struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
			Size      int64  `json:"size"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("%w: its manifest cannot be read: %v", ErrNotSIF, err)
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != LayerType {
		return fmt.Errorf("%w: it must have one layer of the type %s; an ordinary image is named without oras://", ErrNotSIF, LayerType)
	}
	l := m.Layers[0]
	switch {
	case !sha256Digest.MatchString(l.Digest) || l.Size <= 0:
		return fmt.Errorf("%w: its manifest has no usable digest and size", ErrNotSIF)
	case l.Size > c.o.MaxBytes:
		return fmt.Errorf("%w: it has %d bytes, %d are allowed", ErrTooLarge, l.Size, c.o.MaxBytes)
	}
	a.Digest, a.Size = l.Digest, l.Size
	return nil
}

// session is a login at one repository.
type session struct {
	base   url.URL
	client http.Client
}

func (c *Client) open(ctx context.Context, r reference.Reference) (*session, error) {
	repo, err := name.NewRepository(r.Registry + "/" + r.Repository)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", reference.ErrInvalid, err)
	}
	auth := authn.Anonymous
	if c.o.Login != nil {
		if user, password := c.o.Login(r.Registry, r.Repository); user != "" || password != "" {
			auth = authn.FromConfig(authn.AuthConfig{Username: user, Password: password})
		}
	}
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, c.o.Transport(r.Registry), []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, kindOf(err)
	}
	return &session{
		base:   url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: "/v2/" + repo.RepositoryStr() + "/"},
		client: http.Client{Transport: t},
	}, nil
}

func (s *session) get(ctx context.Context, what string, header http.Header) (*http.Response, error) {
	u := s.base
	u.Path += what
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return s.client.Do(req)
}

// errStalled: a download brought nothing for too long.
var errStalled = errors.New("the registry stopped sending")
