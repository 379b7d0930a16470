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
	"slices"
	"strings"
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
	// Places gives the hosts that have a repository of a registry, in the order in which
	// they are asked: mirrors, and the registry itself. Default: the registry, without a
	// login.
	Places func(ctx context.Context, registry, repository string) ([]Place, error)
	// MaxBytes is how large a file may be. Default: 256 GiB.
	MaxBytes int64
	// Stall is how long a download may bring nothing before it is tried again.
	// Default: 1 minute.
	Stall time.Duration
	// Attempts is how often in a row a download may bring nothing. Default: 5.
	Attempts int
}

// Place is one host that has a repository.
type Place struct {
	Registry name.Registry
	Login    authn.Authenticator
	// Transport makes the requests to it, and to where it redirects.
	Transport http.RoundTripper
	// Tags says that it is asked what a tag means, Content that it is asked for what has a
	// digest.
	Tags, Content bool
}

// direct is the registry itself.
func direct(_ context.Context, registry, _ string) ([]Place, error) {
	r, err := name.NewRegistry(registry)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", reference.ErrInvalid, err)
	}
	return []Place{{Registry: r, Login: authn.Anonymous, Transport: http.DefaultTransport, Tags: true, Content: true}}, nil
}

// Client speaks to registries. It holds nothing that needs closing, and may be used by
// many goroutines.
type Client struct{ o Options }

// New makes a client.
func New(o Options) *Client {
	if o.Places == nil {
		o.Places = direct
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

func (c *Client) resolve(ctx context.Context, r reference.Reference) (a Artifact, err error) {
	fits := func(p Place) bool { return p.Content && (p.Tags || r.Digest != "") }
	err = c.each(ctx, r, fits, func(p Place, _ bool) error {
		a, err = c.resolveAt(ctx, p, r)
		return err
	})
	return a, err
}

// each asks one place after the other until one answers. One that sends other bytes than
// the digest says ends it.
func (c *Client) each(ctx context.Context, r reference.Reference, fits func(Place) bool, ask func(p Place, last bool) error) error {
	places, err := c.o.Places(ctx, r.Registry, r.Repository)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	places = slices.DeleteFunc(places, func(p Place) bool { return !fits(p) })
	if len(places) == 0 {
		return fmt.Errorf("%w: no host may be asked for it", ErrUnreachable)
	}
	var failed []string
	for i, p := range places {
		if err = ask(p, i == len(places)-1); err == nil || ctx.Err() != nil || errors.Is(err, ErrDigest) {
			return err
		}
		failed = append(failed, fmt.Sprintf("%s: %v", p.Registry.RegistryStr(), err))
	}
	if len(failed) > 1 {
		return fmt.Errorf("%w; before that %s", err, strings.Join(failed[:len(failed)-1], "; "))
	}
	return err
}

func (c *Client) resolveAt(ctx context.Context, p Place, r reference.Reference) (Artifact, error) {
	session, err := c.open(ctx, p, r)
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

func (c *Client) open(ctx context.Context, p Place, r reference.Reference) (*session, error) {
	repo := p.Registry.Repo(r.Repository)
	t, err := transport.NewWithContext(ctx, p.Registry, p.Login, p.Transport, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, kindOf(err)
	}
	return &session{
		base:   url.URL{Scheme: p.Registry.Scheme(), Host: p.Registry.RegistryStr(), Path: "/v2/" + repo.RepositoryStr() + "/"},
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
