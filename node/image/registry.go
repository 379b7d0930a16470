package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/v6node/v6node/node/image/imageref"
)

// maxChildren bounds how many entries without a platform are looked into.
const maxChildren = 4

// registries asks registries over the network. It keeps connections and tokens between look-ups.
type registries struct {
	platform v1.Platform
	options  func(loopback bool) []remote.Option

	mu      sync.Mutex
	pullers map[bool]*remote.Puller // by whether the registry is on this machine
	uses    int
	fits    map[string]bool // digests known to have a part for this platform: a fact about bytes that never changes
}

// Bounds of what is kept.
const (
	maxUses = 512  // look-ups before the library's state, which grows with the repositories, is dropped
	maxFits = 4096 // digests
)

// puller returns the library's client for a kind of registry.
func (r *registries) puller(loopback bool) (*remote.Puller, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses++; r.uses > maxUses {
		r.uses, r.pullers = 0, map[bool]*remote.Puller{}
	}
	if p := r.pullers[loopback]; p != nil {
		return p, nil
	}
	p, err := remote.NewPuller(r.options(loopback)...)
	if err != nil {
		return nil, err
	}
	r.pullers[loopback] = p
	return p, nil
}

// forget drops tokens and connections' state after a failure, so that the next look-up starts afresh.
func (r *registries) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pullers = map[bool]*remote.Puller{}
}

func (r *registries) isFit(digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fits[digest]
}

func (r *registries) setFit(digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.fits) >= maxFits {
		clear(r.fits)
	}
	r.fits[digest] = true
}

// lookUp finds the digest of an image and makes sure that it has a part for the platform. Its errors are *Error or
// the context's.
func (r *registries) lookUp(ctx context.Context, ref imageref.Reference) (string, error) {
	digest, err := r.find(ctx, ref)
	if err != nil {
		r.forget()
		return "", classify(ref.String(), err)
	}
	return digest, nil
}

// at is what asks the registry of a domain, and how its names are to be read:
// without TLS on this machine only.
func (r *registries) at(domain string) (*remote.Puller, []name.Option, error) {
	loopback := isLoopback(domain)
	p, err := r.puller(loopback)
	if err != nil || !loopback {
		return p, nil, err
	}
	return p, []name.Option{name.Insecure}, nil
}

func (r *registries) find(ctx context.Context, ref imageref.Reference) (string, error) {
	p, opts, err := r.at(ref.Domain)
	if err != nil {
		return "", err
	}
	target, err := name.ParseReference(ref.String(), opts...)
	if err != nil {
		return "", &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: err}
	}
	if ref.Digest == "" {
		head, err := p.Head(ctx, target)
		switch {
		case err == nil && head.Digest.Algorithm == "sha256":
			if r.isFit(head.Digest.String()) {
				return head.Digest.String(), nil
			}
			// By digest from here on, so that both answers are about one image, and the bytes are verified.
			target = target.Context().Digest(head.Digest.String())
		case err != nil && !headUnsupported(err):
			return "", err
		}
	}
	desc, err := p.Get(ctx, target)
	if err != nil {
		if ref.Digest != "" && !isTransport(err) && ctx.Err() == nil && isMismatch(err) {
			return "", &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: errors.New("its registry sent other bytes than the digest says")}
		}
		return "", err
	}
	digest := desc.Digest.String()
	if !imageref.IsDigest(digest) {
		return "", &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: fmt.Errorf("its digest %s is not SHA-256", short(digest))}
	}
	if !r.isFit(digest) {
		if err := r.check(ctx, p, target.Context(), ref, desc); err != nil {
			return "", err
		}
		r.setFit(digest)
	}
	return digest, nil
}

// headUnsupported reports whether a registry failed to answer HEAD in the way that some do, so that GET is worth
// trying: by a method error or by leaving out headers.
func headUnsupported(err error) bool {
	var status *transport.Error
	if errors.As(err, &status) {
		return status.StatusCode == http.StatusMethodNotAllowed || status.StatusCode == http.StatusNotImplemented || status.StatusCode == http.StatusBadRequest
	}
	return isMismatch(err)
}

// isMismatch reports whether an error comes from reading an answer, not from getting one.
func isMismatch(err error) bool {
	var request interface{ Timeout() bool }
	return !errors.As(err, &request) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

func isTransport(err error) bool {
	var status *transport.Error
	return errors.As(err, &status)
}

// check makes sure that an image or index has something for the platform.
func (r *registries) check(ctx context.Context, p *remote.Puller, repo name.Repository, ref imageref.Reference, desc *remote.Descriptor) error {
	invalid := func(format string, a ...any) error {
		return &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: fmt.Errorf(format, a...)}
	}
	switch {
	case desc.MediaType.IsIndex():
		return r.checkIndex(ctx, p, repo, ref, desc)
	case desc.MediaType.IsSchema1():
		return invalid("it has the old manifest format 1, which runtimes no longer read")
	case desc.MediaType.IsImage():
		found, err := platformOf(ref, desc)
		if err != nil {
			return err
		}
		if !r.matches(found) {
			return r.wrong(ref, []string{describe(found)})
		}
		return nil
	}
	return invalid("its media type is %q", short(string(desc.MediaType)))
}

func (r *registries) checkIndex(ctx context.Context, p *remote.Puller, repo name.Repository, ref imageref.Reference, desc *remote.Descriptor) error {
	index, err := v1.ParseIndexManifest(bytes.NewReader(desc.Manifest))
	if err != nil {
		return &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: errors.New("its registry sent something that is not an index")}
	}
	var unlabelled []v1.Descriptor
	var found []string
	for _, m := range index.Manifests {
		switch {
		case m.Platform == nil:
			unlabelled = append(unlabelled, m)
		case r.matches(m.Platform):
			return nil
		case m.Platform.OS != "unknown" && len(found) < 16: // "unknown" are signatures and the like
			found = append(found, describe(m.Platform))
		}
	}
	for _, m := range unlabelled[:min(len(unlabelled), maxChildren)] {
		if !m.MediaType.IsImage() || !imageref.IsDigest(m.Digest.String()) {
			continue
		}
		child, err := p.Get(ctx, repo.Digest(m.Digest.String()))
		if err != nil {
			return err
		}
		platform, err := platformOf(ref, child)
		if err != nil {
			return err
		}
		if r.matches(platform) {
			return nil
		}
		found = append(found, describe(platform))
	}
	return r.wrong(ref, found)
}

// platformOf reads the platform from an image's configuration.
func platformOf(ref imageref.Reference, desc *remote.Descriptor) (*v1.Platform, error) {
	invalid := func(text string) error {
		return &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: errors.New(text)}
	}
	m, err := v1.ParseManifest(bytes.NewReader(desc.Manifest))
	if err != nil {
		return nil, invalid("its registry sent something that is not a manifest")
	}
	if t := m.Config.MediaType; t != types.OCIConfigJSON && t != types.DockerConfigJSON {
		return nil, invalid("it is an artifact of type " + short(string(t)) + ", not a container image")
	}
	if m.Config.Size > maxBody {
		return nil, invalid("its configuration is too long")
	}
	img, err := desc.Image()
	if err != nil {
		return nil, err
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	var config v1.Platform
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, invalid("its configuration is not JSON")
	}
	return &config, nil
}

// matches compares a platform with this machine's. A configuration that says nothing is left to the runtime.
func (r *registries) matches(p *v1.Platform) bool {
	return (p.OS == "" || p.OS == r.platform.OS) && (p.Architecture == "" || p.Architecture == r.platform.Architecture)
}

func (r *registries) wrong(ref imageref.Reference, found []string) error {
	text := "nothing"
	if len(found) > 0 {
		text = fmt.Sprint(found)
	}
	return &Error{Ref: ref.String(), Kind: ErrWrongPlatform, Cause: fmt.Errorf("it is made for %s, this machine is %s", text, describe(&r.platform))}
}

func describe(p *v1.Platform) string {
	return short(p.OS + "/" + p.Architecture)
}

// newTransport is the network side: proxies from the environment, and a bound on every wait.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  15 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}
