package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/image/credentials"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/sif"
	"github.com/v6node/v6node/sif/oras"
)

// SIFOptions of a SIF source.
type SIFOptions struct {
	// Store has the SIF images. It must have been made with the SIFPlaces of this package.
	Store *sif.Store
	// Timeout bounds a look-up in a registry. Default 30 s.
	Timeout time.Duration
	// Shed makes the runtime give up its own copy of layers that it has unpacked,
	// where it can do that; else nil. The store can make them again.
	Shed func(ctx context.Context, layers []string) error
	// Log is told when it cannot. Default: none.
	Log *slog.Logger
}

// SIF is the source of images in SIF files, of this machine and of registries: the runtime pulls what they are
// converted to from the store's own registry. An image that the runtime holds is neither converted nor pulled.
type SIF struct{ o SIFOptions }

// NewSIF makes a source. The store is closed by whoever made it.
func NewSIF(o SIFOptions) *SIF {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &SIF{o}
}

// Resolve implements Source.
func (s *SIF) Resolve(ctx context.Context, ref string) (Resolved, error) {
	parsed, err := parse(ref)
	if err != nil {
		return Resolved{}, err
	}
	lookUp, cancel := ctx, context.CancelFunc(func() {})
	if parsed.Scheme == imageref.ORAS { // reading a large file of this machine for the first time may take longer
		lookUp, cancel = context.WithTimeout(ctx, s.o.Timeout)
	}
	defer cancel()
	found, err := s.o.Store.Resolve(lookUp, parsed.String(), nil)
	if err != nil {
		return Resolved{}, sifError(ctx, ref, err)
	}
	r := Resolved{Reference: ref, Repository: parsed.Name(), Digest: found.Digest, found: found}
	if parsed.Scheme == imageref.ORAS {
		_, r.Digest, _ = strings.Cut(found.Canonical, "@")
		r.File = found.Digest
	}
	r.Pinned = parsed.Pin(r.Digest)
	return r, nil
}

// Provide implements Source.
func (s *SIF) Provide(ctx context.Context, r Resolved, o Provision) (*Provided, error) {
	progress := func(p sif.Progress) {
		if o.Progress != nil {
			o.Progress(Progress{string(p.Stage), p.Done, p.Total})
		}
	}
	began, converting := time.Now(), false
	ready, err := s.o.Store.Ensure(ctx, r.found, func(p sif.Progress) {
		if !converting && p.Stage == sif.Converting {
			began, converting = time.Now(), true
		}
		progress(p)
	})
	if o.Converted != nil && (err == nil && ready.Converted || err != nil && converting && ctx.Err() == nil) {
		o.Converted(r.found.Size, time.Since(began), err)
	}
	if err != nil {
		return nil, sifError(ctx, r.Reference, err)
	}
	p, err := s.provide(ctx, r, ready, o, progress)
	if err = errors.Join(err, ready.Release()); err != nil {
		return nil, err
	}
	return p, nil
}

func (s *SIF) provide(ctx context.Context, r Resolved, ready *sif.Pull, o Provision, progress func(sif.Progress)) (*Provided, error) {
	// By its ID the runtime has the image whatever the port of the store's registry was when it was pulled.
	p := &Provided{Name: ready.ImageID, Converted: ready.Converted, Signers: ready.Signers}
	if err := o.Named(p.Name); err != nil {
		return nil, err
	}
	img, err := o.Store.Image(ctx, p.Name)
	if err == nil {
		p.Image = img
		return p, nil
	}
	if !errors.Is(err, runtime.ErrImageNotFound) {
		return nil, fmt.Errorf("look for the image %s: %w", r.Pinned, err)
	}
	if err := ready.Prepare(ctx, progress); err != nil {
		return nil, sifError(ctx, r.Reference, err)
	}
	at, _, _ := strings.Cut(ready.Reference, "/")
	auth := &runtime.Auth{Server: "http://" + at, Username: ready.Username, Password: ready.Password}
	if _, err := o.Store.PullImage(ctx, ready.Reference, auth, pullOptions(o)); err != nil {
		return nil, fmt.Errorf("give the converted image %s to the runtime: %w", r.Pinned, err)
	}
	if p.Image, err = o.Store.Image(ctx, p.Name); err != nil {
		return nil, fmt.Errorf("look for the converted image %s: %w", r.Pinned, err)
	}
	p.Fetched = true
	if s.o.Shed != nil && len(ready.Layers) > 0 {
		if err := s.o.Shed(ctx, ready.Layers); err != nil { // costs disk, and no run
			s.o.Log.WarnContext(ctx, "the runtime keeps a copy of a converted image's layers that nobody needs", "image", r.Pinned, "error", err)
		}
	}
	return p, nil
}

// Things implements node.Cache: what the store keeps of SIF images.
func (s *SIF) Things() ([]collect.Thing, error) {
	all, err := s.o.Store.Cached()
	if err != nil {
		return nil, fmt.Errorf("list the cache of SIF images: %w", err)
	}
	names := map[string][]string{}
	for _, u := range all {
		if u.Record != nil {
			names[u.Digest] = u.Record.Names
		}
	}
	out := make([]collect.Thing, 0, len(all))
	for _, u := range all {
		called := u.Digest
		if n := names[u.Digest]; len(n) > 0 {
			called = n[len(n)-1]
		}
		what := map[string]string{"image": "conversion of ", "download": "download of "}[u.Kind]
		out = append(out, collect.Thing{
			Kind: "cache", Name: what + called, Names: append([]string{u.Digest}, names[u.Digest]...), Size: u.Size, UsedAt: u.UsedAt,
			Remove: func(context.Context) (bool, error) { return s.o.Store.Discard(u) },
		})
	}
	return out, nil
}

// pullOptions passes the progress of a pull on.
func pullOptions(o Provision) runtime.PullOptions {
	if o.Progress == nil {
		return runtime.PullOptions{}
	}
	return runtime.PullOptions{Progress: func(n uint64) { o.Progress(Progress{Doing: "pulling", Done: int64(n)}) }}
}

// SIFPlaces gives a store the hosts of registries by the rules of this package: the same mirrors, certificates and
// logins as container images have, HTTPS except on this machine, and no redirects to services of this machine. What is
// downloaded is bounded by the store.
func SIFPlaces(a *Access) func(ctx context.Context, registry, repository string) ([]oras.Place, error) {
	return func(ctx context.Context, domain, repository string) ([]oras.Place, error) {
		places, err := a.places(credentials.Normalize(domain), nil)
		if err != nil {
			return nil, err
		}
		var out []oras.Place
		for _, p := range places {
			registry, err := p.registry()
			if err != nil {
				return nil, fmt.Errorf("the host %s of the registry %s cannot be asked: %w", p.Host.Host, domain, err)
			}
			auth, err := keychain{p}.ResolveContext(ctx, registry.Repo(repository))
			if err != nil {
				return nil, err
			}
			out = append(out, oras.Place{Registry: registry, Login: auth, Transport: p.through(true), Tags: p.Resolve, Content: p.Pull})
		}
		return out, nil
	}
}

// sifKinds is the one table from the kinds of failure of SIF images to those of images, with what to do.
var sifKinds = []struct {
	from, kind error
	do         string
}{
	{sif.ErrSignature, ErrSignature, "sign it with a key that this node trusts, or ask the node's administrator"},
	{sif.ErrChanged, ErrChanged, "send the task again when the file is complete"},
	{sif.ErrInvalid, ErrInvalid, "check the name"},
	{sif.ErrNotFound, ErrNotFound, "check the name, and ask the node's administrator which images there are"},
	{sif.ErrDenied, ErrDenied, "check the name, and the login in docker_registries or registries.auth_files"},
	{sif.ErrUnreachable, ErrUnreachable, "check the network and the registry, then try again"},
	{sif.ErrPlatform, ErrWrongPlatform, "build it for this platform too"},
	{sif.ErrUnusable, ErrInvalid, "build it anew as an ordinary SIF image"},
}

// sifError turns a failure of the store into an Error. What is neither the image's nor a registry's fault is this
// machine's.
func sifError(ctx context.Context, ref string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &Error{Ref: short(ref), Kind: ErrConversion, Cause: err}
	do := "ask the node's administrator to look at the node's log and its disk"
	for _, k := range sifKinds {
		if errors.Is(err, k.from) {
			e.Kind, do = k.kind, k.do
			break
		}
	}
	switch {
	case errors.Is(err, oras.ErrTooLarge):
		do = "make it smaller, or ask the node's administrator to raise sif.max_image_size"
	case errors.Is(err, oras.ErrNotSIF):
		do = "check the name"
	}
	e.text = fmt.Sprintf("%v; %s", err, do)
	return e
}
