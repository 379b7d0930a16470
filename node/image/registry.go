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
	platform  v1.Platform
	access    *Access
	transport http.RoundTripper // in place of the network; may be nil
	userAgent string

	mu   sync.Mutex
	sets map[string]*placeSet // by the registry's domain
	fits map[string]bool      // digests known to have a part for this platform: a fact about bytes that never changes
}

// Bounds of what is kept.
const (
	maxUses = 512  // look-ups before the library's state, which grows with the repositories, is dropped
	maxSets = 256  // registries
	maxFits = 4096 // digests
	// readHostsEvery is how long what hosts.toml and the files that it names say counts.
	readHostsEvery = 10 * time.Second
)

// placeSet are the places of one registry with the library's client for each.
type placeSet struct {
	places  []*place
	pullers map[*place]*remote.Puller
	until   time.Time
	uses    int
}

// at returns the places of a registry. fresh tells that nothing is remembered of them, no login for one.
func (r *registries) at(domain string) (s *placeSet, fresh bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sets[domain]; s != nil {
		if s.uses++; s.uses <= maxUses && time.Now().Before(s.until) {
			return s, false, nil
		}
		r.drop(domain)
	}
	if len(r.sets) >= maxSets {
		for d := range r.sets {
			r.drop(d)
		}
	}
	places, err := r.access.places(domain, r.transport)
	if err != nil {
		return nil, false, err
	}
	s = &placeSet{places: places, pullers: map[*place]*remote.Puller{}, until: time.Now().Add(readHostsEvery)}
	for _, p := range places {
		if s.pullers[p], err = remote.NewPuller(
			remote.WithTransport(p.through(false)),
			remote.WithAuthFromKeychain(keychain{p}),
			remote.WithPlatform(r.platform),
			remote.WithUserAgent(r.userAgent),
			remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.2, Steps: 3}),
			// Not the library's list: it retries 500 too, which registries answer to what they do not like.
			remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
		); err != nil {
			return nil, false, err
		}
	}
	r.sets[domain] = s
	return s, true, nil
}

// drop forgets a registry's places. The lock is held.
func (r *registries) drop(domain string) {
	for _, p := range r.sets[domain].places {
		p.close()
	}
	delete(r.sets, domain)
}

// forget drops tokens and connections' state after a failure, so that the next look-up starts afresh.
func (r *registries) forget(domain string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sets[domain] != nil {
		r.drop(domain)
	}
}

// close gives up idle connections.
func (r *registries) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d := range r.sets {
		r.drop(d)
	}
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
	needs := func(p *place) bool { return p.Pull && (p.Resolve || ref.Digest != "") }
	return ask(ctx, r, ref.Domain, ref.String(), needs, func(p *place, puller *remote.Puller) (string, error) {
		return r.find(ctx, p, puller, ref)
	})
}

// ask asks the places of a registry. A login that was refused may have been replaced since it was remembered, so the
// second question begins afresh.
func ask[T any](ctx context.Context, r *registries, domain, ref string, fits func(*place) bool, one func(*place, *remote.Puller) (T, error)) (T, error) {
	for first := true; ; first = false {
		s, fresh, err := r.at(domain)
		if err != nil {
			var none T
			return none, classify(ref, err)
		}
		got, err := eachPlace(s.places, ref, fits, func(p *place) (T, error) { return one(p, s.pullers[p]) })
		if err == nil {
			return got, nil
		}
		r.forget(domain)
		if fresh || !first || !errors.Is(err, ErrDenied) || ctx.Err() != nil {
			return got, classify(ref, err)
		}
	}
}

func (r *registries) find(ctx context.Context, at *place, p *remote.Puller, ref imageref.Reference) (string, error) {
	repo, err := at.repository(ref.Path)
	if err != nil {
		return "", &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: err}
	}
	var target name.Reference = repo.Tag(ref.TagOrDefault())
	if ref.Digest != "" {
		target = repo.Digest(ref.Digest)
	} else {
		head, err := p.Head(ctx, target)
		switch {
		case err == nil && head.Digest.Algorithm == "sha256":
			if r.isFit(head.Digest.String()) {
				return head.Digest.String(), nil
			}
			// By digest from here on, so that both answers are about one image, and the bytes are verified.
			target = repo.Digest(head.Digest.String())
		case err != nil && !headUnsupported(err):
			return "", err
		}
	}
	desc, err := p.Get(ctx, target)
	if err != nil {
		if ref.Digest != "" && !isTransport(err) && ctx.Err() == nil && isMismatch(err) {
			return "", &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: fmt.Errorf("%s sent %w", at, errOtherBytes)}
		}
		return "", err
	}
	digest := desc.Digest.String()
	if !imageref.IsDigest(digest) {
		return "", &Error{Ref: ref.String(), Kind: ErrInvalid, Cause: fmt.Errorf("its digest %s is not SHA-256", short(digest))}
	}
	if !r.isFit(digest) {
		if err := r.check(ctx, p, repo, ref, desc); err != nil {
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
