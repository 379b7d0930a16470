package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/image/imported"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/sif"
)

// Defaults of Options.
const (
	defaultTimeout  = 30 * time.Second
	defaultCacheFor = 5 * time.Second
	maxCached       = 1024
)

// LocalFunc asks the runtime whether it already has an image, by canonical reference (name:tag or name@digest). digest
// is the image's repository digest, platformOK whether it runs here. It is called from several goroutines.
type LocalFunc func(ctx context.Context, ref string) (digest string, platformOK, found bool)

// Options of a Resolver. The zero value asks registries anonymously.
type Options struct {
	// Access is how registries are reached.
	Access *Access
	// MirrorLogins says that the runtime shows a login only to the host that it is for, as containerd does, so that
	// it may be given that of a mirror.
	MirrorLogins bool
	// OwnMirrors says that the runtime reads its mirrors and certificates from files of its own, so that a failed pull may
	// come from these.
	OwnMirrors bool
	// Local lets a reference by digest be resolved without the network, and one by tag when RequirePull is
	// false and its registry does not give it. nil means that the runtime has nothing.
	Local LocalFunc
	// RequirePull refuses local images for references by tag: the registry must answer. Provide then pulls also what
	// the runtime has.
	RequirePull bool
	// Timeout bounds one look-up, retries included. Default 30 s.
	Timeout time.Duration
	// CacheFor is how long an answer serves later callers. Default 5 s; negative keeps none. Failures are not
	// kept.
	CacheFor time.Duration
	// OS and Architecture in Go's names; default linux and this machine's.
	OS, Architecture string
	// Transport replaces the network side where no certificates are configured. The proxy variables
	// (HTTPS_PROXY, NO_PROXY) are honoured by default.
	Transport http.RoundTripper
	UserAgent string
}

// Resolved is what a reference means.
type Resolved struct {
	Reference  string // as asked
	Repository string // canonical name without tag: "docker.io/library/python", "sif:algo"
	Digest     string // "sha256:..." of the image or index; of the file of a sif: image; of the manifest of an oras:// one
	Pinned     string // Repository@Digest: what is checked, provided and recorded
	File       string // of an oras:// image the digest of the SIF file
	Local      bool   // from the runtime or imported, without asking the registry

	found    sif.Resolved     // what a SIF image's store knows
	imported *imported.Record // of an imported container image
}

// Resolver is the source of the images of registries. It is safe for concurrent use: callers that ask for the same image at the same time
// share one look-up, and one that gives up does not disturb the others. Whoever makes one closes it.
type Resolver struct {
	local        LocalFunc
	requirePull  atomic.Bool
	mirrorLogins bool
	ownMirrors   bool
	timeout      time.Duration
	cacheFor     time.Duration
	registries   *registries

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // look-ups under way

	mu      sync.Mutex
	closed  bool
	flights map[string]*flight
	cache   map[string]cached
}

type cached struct {
	Resolved
	until time.Time
}

// flight is one look-up under way.
type flight struct {
	done    chan struct{} // closed when the result is there
	cancel  context.CancelFunc
	waiting int // callers; the last one to give up cancels
	result  Resolved
	err     error
}

// New makes a Resolver.
func New(o Options) *Resolver {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.CacheFor == 0 {
		o.CacheFor = defaultCacheFor
	}
	if o.OS == "" {
		o.OS = "linux"
	}
	if o.Architecture == "" {
		o.Architecture = goruntime.GOARCH
	}
	if o.UserAgent == "" {
		o.UserAgent = "v6node"
	}
	if o.Access == nil {
		o.Access = &Access{}
	}
	r := &Resolver{
		local: o.Local, timeout: o.Timeout, cacheFor: o.CacheFor, mirrorLogins: o.MirrorLogins, ownMirrors: o.OwnMirrors,
		flights: map[string]*flight{}, cache: map[string]cached{},
	}
	r.requirePull.Store(o.RequirePull)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.registries = &registries{
		platform: v1.Platform{OS: o.OS, Architecture: o.Architecture}, access: o.Access, transport: o.Transport, userAgent: o.UserAgent,
		sets: map[string]*placeSet{}, fits: map[string]bool{},
	}
	return r
}

// Close ends the look-ups under way and waits for them. It may be called more than once.
func (r *Resolver) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.registries.close()
	return nil
}

// Resolve finds the digest that ref means now, and makes sure that the image has a part for this platform. Errors are
// *Error with one of the kinds, or ctx's own.
func (r *Resolver) Resolve(ctx context.Context, ref string) (Resolved, error) {
	if err := ctx.Err(); err != nil {
		return Resolved{}, err
	}
	parsed, err := parse(ref)
	if err == nil && parsed.Scheme != imageref.Container {
		err = &Error{Ref: parsed.String(), Kind: ErrInvalid}
	}
	if err != nil {
		return Resolved{}, err
	}
	f, hit := r.join(ctx, parsed)
	if f == nil {
		hit.Reference = ref
		return hit, nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		r.leave(parsed.String(), f)
		return Resolved{}, ctx.Err()
	}
	if f.err != nil {
		return Resolved{}, f.err
	}
	result := f.result // shared with the other callers
	result.Reference = ref
	return result, nil
}

// Check refuses a text that is no image reference, with an *Error of the kind ErrInvalid. It asks nobody.
func Check(ref string) error {
	_, err := parse(ref)
	return err
}

func parse(ref string) (imageref.Reference, error) {
	parsed, err := imageref.Parse(ref)
	if err != nil {
		return parsed, &Error{Ref: short(ref), Kind: ErrInvalid, Cause: err}
	}
	return parsed, nil
}

// SetRequirePull changes Options.RequirePull for what is asked from now on.
func (r *Resolver) SetRequirePull(on bool) {
	if r.requirePull.Swap(on) == on {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.cache) // what was found by the other rule
}

// Provide implements Source.
func (r *Resolver) Provide(ctx context.Context, res Resolved, o Provision) (*Provided, error) {
	if err := o.Named(res.Pinned); err != nil {
		return nil, err
	}
	img, err := o.Store.Image(ctx, res.Pinned)
	switch {
	case err == nil && !r.requirePull.Load():
		return &Provided{Name: res.Pinned, Image: img}, nil
	case err != nil && !errors.Is(err, runtime.ErrImageNotFound):
		return nil, fmt.Errorf("look for the image %s: %w", res.Pinned, err)
	}
	auth, err := r.Auth(ctx, res.Reference)
	if err != nil {
		return nil, err
	}
	if img, err = o.Store.PullImage(ctx, res.Pinned, auth, pullOptions(o)); err != nil {
		return nil, r.differs(res.Repository, err)
	}
	return &Provided{Name: res.Pinned, Image: img, Fetched: true}, nil
}

// differs adds to a failed pull, whose error says what was pulled, that the runtime may have asked another host than the
// node has.
func (r *Resolver) differs(repository string, err error) error {
	of, bad := imageref.Parse(repository)
	if !r.ownMirrors || bad != nil || !errors.Is(err, runtime.ErrRegistryUnreachable) && !errors.Is(err, runtime.ErrRegistryDenied) && !errors.Is(err, runtime.ErrImageNotFound) {
		return err
	}
	list, bad := r.registries.access.Hosts.Load(of.Domain)
	if bad != nil || list == nil {
		return err // the node has asked the registry itself, as the runtime does
	}
	what := "certificates"
	var mirrors []string
	for _, h := range list {
		if h.Mirror {
			mirrors = append(mirrors, h.Host)
		}
	}
	if mirrors != nil {
		what = "the mirror " + strings.Join(mirrors, ", ")
	}
	return fmt.Errorf("%w; the node has %s for %s, and this runtime reads files of its own: see that they say the same (docs/registries.md)", err, what, of.Domain)
}

// join returns a cached answer (and no flight), or the flight to wait for, which it starts if there is none.
func (r *Resolver) join(ctx context.Context, ref imageref.Reference) (*flight, Resolved) {
	key := ref.String()
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.cache[key]; ok && time.Now().Before(c.until) {
		return nil, c.Resolved
	}
	if f := r.flights[key]; f != nil {
		f.waiting++
		return f, Resolved{}
	}
	f := &flight{done: make(chan struct{}), waiting: 1}
	if r.closed {
		f.err = &Error{Ref: key, Kind: ErrUnreachable, Cause: errClosed}
		close(f.done)
		return f, Resolved{}
	}
	// The look-up outlives the caller that started it, if others wait too.
	fctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(r.ctx, cancel)
	f.cancel = cancel
	r.flights[key] = f
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer stop()
		defer cancel()
		result, err := r.resolve(fctx, ref)
		if err != nil && r.ctx.Err() != nil {
			err = &Error{Ref: key, Kind: ErrUnreachable, Cause: errClosed}
		}
		r.land(key, f, result, err)
	}()
	return f, Resolved{}
}

// leave gives up waiting.
func (r *Resolver) leave(key string, f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		if r.flights[key] == f { // whoever comes next starts afresh
			delete(r.flights, key)
		}
	}
}

// land stores the result of a flight.
func (r *Resolver) land(key string, f *flight, result Resolved, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flights[key] == f {
		delete(r.flights, key)
	}
	f.result, f.err = result, err
	close(f.done)
	if err != nil || r.cacheFor < 0 {
		return
	}
	now := time.Now()
	if len(r.cache) >= maxCached {
		for k, c := range r.cache {
			if now.After(c.until) {
				delete(r.cache, k)
			}
		}
	}
	if len(r.cache) < maxCached {
		r.cache[key] = cached{result, now.Add(r.cacheFor)}
	}
}

// resolve does the work of one flight.
func (r *Resolver) resolve(ctx context.Context, ref imageref.Reference) (Resolved, error) {
	if ref.Digest != "" {
		if digest, fits, found := r.askLocal(ctx, ref); found && digest == ref.Digest {
			return r.fromLocal(ref, digest, fits)
		}
	}
	lookUp, cancel := context.WithTimeout(ctx, r.timeout)
	digest, err := r.registries.lookUp(lookUp, ref)
	cancel()
	if err == nil {
		return Resolved{Repository: ref.Name(), Digest: digest, Pinned: ref.Pin(digest)}, nil
	}
	if !r.requirePull.Load() && ref.Digest == "" && ctx.Err() == nil && mayUseLocal(err) {
		if digest, fits, found := r.askLocal(ctx, ref); found {
			return r.fromLocal(ref, digest, fits)
		}
	}
	return Resolved{}, err
}

func (r *Resolver) askLocal(ctx context.Context, ref imageref.Reference) (digest string, fits, found bool) {
	if r.local == nil {
		return "", false, false
	}
	digest, fits, found = r.local(ctx, ref.String())
	return digest, fits, found && imageref.IsDigest(digest)
}

func (r *Resolver) fromLocal(ref imageref.Reference, digest string, fits bool) (Resolved, error) {
	if !fits {
		return Resolved{}, r.registries.wrong(ref, []string{"another platform"})
	}
	return Resolved{Repository: ref.Name(), Digest: digest, Pinned: ref.Pin(digest), Local: true}, nil
}
