package sif

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path"
	"sync"
	"time"

	"github.com/v6node/v6node/sif/cache"
	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/oras"
	"github.com/v6node/v6node/sif/reference"
	"github.com/v6node/v6node/sif/registry"
	"github.com/v6node/v6node/sif/signature"
)

// Options of a store. Only CacheDir is required.
type Options struct {
	// Directories are where sif: references look, the first that has a name wins.
	Directories []string
	// CacheDir is the store's own directory. Several stores and processes may share one.
	CacheDir string
	// CacheBytes is how many bytes the cache may keep that are not in use. 0: no limit.
	CacheBytes int64
	// KeepLayers keeps converted layers after they were pulled, within CacheBytes; see
	// cache.Options.
	KeepLayers bool
	// MaxImageBytes is how large a SIF file, and how large an image converted from one, may
	// be. Default: 256 GiB.
	MaxImageBytes int64
	// Keys, if set, are the keys of which one must have signed every image.
	Keys *signature.Keys
	// ORAS has the options for registries; its MaxBytes is not used.
	ORAS oras.Options
	// Listen is the loopback address of the registry that runtimes pull from. Default:
	// 127.0.0.1:0, which is a free port.
	Listen string
	// Architecture is the machine's. Default: this program's.
	Architecture string
	// Importer, if set, is the way around the registry for layers: they go into the
	// runtime's own store while they are made, and not into the cache. Where it fails, they
	// go the usual way.
	Importer Importer
	// Log gets what happens outside of calls. Default: nothing is logged.
	Log *slog.Logger
}

const (
	defaultMaxImage = 256 << 30
	openSources     = 4 // files kept open between Resolve and Ensure
)

// Namespace is the first part of the names under which a store serves images.
const Namespace = "sif"

// Store makes SIF images pullable. Its methods may be called by many goroutines.
type Store struct {
	o        Options
	cache    *cache.Cache
	oras     *oras.Client
	registry *registry.Registry
	address  string

	stop   context.CancelFunc
	served chan error

	mu      sync.Mutex
	sources []*image.Source // of files that were resolved, the latest last
	closed  bool
}

// Open opens a store and starts its registry. Close it.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.MaxImageBytes <= 0 {
		o.MaxImageBytes = defaultMaxImage
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := cache.Open(o.CacheDir, cache.Options{MaxBytes: o.CacheBytes, KeepLayers: o.KeepLayers})
	if err != nil {
		return nil, fmt.Errorf("open the cache for SIF images: %w", err)
	}
	l, err := registry.Listen(ctx, o.Listen)
	if err != nil {
		return nil, fmt.Errorf("start the registry for SIF images: %w", err)
	}
	fetch := o.ORAS
	fetch.MaxBytes = o.MaxImageBytes
	s := &Store{o: o, cache: c, oras: oras.New(fetch), registry: registry.New(o.Log), address: l.Addr().String(), served: make(chan error, 1)}
	s.serve(l)
	return s, nil
}

// serve runs the registry until Close.
func (s *Store) serve(l net.Listener) {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.served <- registry.Serve(ctx, l, s.registry, s.o.Log) }()
}

// Close stops the registry and closes what is open. Pulls that go on fail.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	sources := s.sources
	s.sources = nil
	s.mu.Unlock()
	s.stop()
	errs := []error{<-s.served}
	for _, src := range sources {
		errs = append(errs, src.Close())
	}
	return errors.Join(errs...)
}

// Address is where the registry listens.
func (s *Store) Address() string { return s.address }

// Cached lists what the cache holds, the last used first.
func (s *Store) Cached() ([]cache.Usage, error) { return s.cache.List() }

// Discard removes something that Cached has shown, unless it is in use or was used since
// then, and tells whether it did. It is made or fetched again when it is needed.
func (s *Store) Discard(u cache.Usage) (bool, error) { return s.cache.Discard(u) }

// Is reports whether text is meant as a reference to a SIF image, be it a valid one or not.
func Is(text string) bool { return reference.Is(text) }

// Resolved is what a reference means.
type Resolved struct {
	Reference string // as asked for
	// Canonical names this one image for ever: sif:NAME@DIGEST with the digest of the
	// file, oras://REGISTRY/REPOSITORY@DIGEST with the digest of the artifact's manifest.
	Canonical string
	// Digest is the SHA-256 of the SIF file, for both schemes.
	Digest string
	// Size is the length of the SIF file in bytes.
	Size int64

	ref      reference.Reference
	artifact oras.Artifact
}

// Progress of a long call: what is done, and how far. Total is 0 where it is not known.
type Progress struct {
	Stage       Stage
	Done, Total int64 // bytes
}

// Stage is what is being done.
type Stage string

// The stages.
const (
	Reading     Stage = "reading"
	Downloading Stage = "downloading"
	Verifying   Stage = "verifying"
	Converting  Stage = "converting"
)

// report is a progress function that may be nil.
type report func(Progress)

func (r report) bytes(stage Stage, total int64) func(int64) {
	if r == nil {
		return nil
	}
	return func(n int64) { r(Progress{stage, n, total}) }
}

// Resolve finds out what a reference means, and reads the file if its digest is not
// known. Nothing is downloaded, verified or converted. progress may be nil.
func (s *Store) Resolve(ctx context.Context, text string, progress func(Progress)) (Resolved, error) {
	r, err := s.resolve(ctx, text, progress)
	return r, failed(text, err)
}

func (s *Store) resolve(ctx context.Context, text string, progress report) (Resolved, error) {
	ref, err := reference.Parse(text)
	if err != nil {
		return Resolved{}, err
	}
	res := Resolved{Reference: text, ref: ref}
	if ref.Scheme == reference.ORAS {
		if res.artifact, err = s.oras.Resolve(ctx, ref); err != nil {
			return Resolved{}, err
		}
		res.Canonical, res.Digest, res.Size = ref.Pin(res.artifact.Manifest).String(), res.artifact.Digest, res.artifact.Size
		return res, nil
	}
	f, err := reference.Directories(s.o.Directories).Open(ref)
	if err != nil {
		return Resolved{}, err
	}
	if res.Digest, res.Size, err = s.digest(ctx, f, progress); err != nil {
		return Resolved{}, err
	}
	if ref.Digest != "" && ref.Digest != res.Digest {
		return Resolved{}, fmt.Errorf("%w with this digest: the file has %s", reference.ErrNotFound, res.Digest)
	}
	res.Canonical = ref.Pin(res.Digest).String()
	return res, nil
}

// digest gives the digest of a file, which it closes, or keeps as a source.
func (s *Store) digest(ctx context.Context, f *os.File, progress report) (string, int64, error) {
	st, err := image.StateOf(f)
	if err != nil {
		return "", 0, errors.Join(err, f.Close())
	}
	if d, ok := s.cache.Known(stateText(st)); ok {
		return d, st.Size, f.Close()
	}
	src, err := s.read(ctx, f, st.Size, progress)
	if err != nil {
		return "", 0, err
	}
	s.keep(src)
	return src.Digest(), src.Size(), nil
}

// settled is how long a file must have been left alone for its state to tell that it is
// still the same: file systems count time in steps.
const settled = 2 * time.Second

// read makes a source of a file and remembers its digest.
func (s *Store) read(ctx context.Context, f *os.File, size int64, progress report) (*image.Source, error) {
	now := time.Now()
	src, err := image.NewSource(ctx, f, s.o.MaxImageBytes, progress.bytes(Reading, size))
	if err != nil {
		return nil, err
	}
	if st := src.State(); now.Sub(time.Unix(0, max(st.MTime, st.CTime))) > settled {
		if err := s.cache.Learn(stateText(st), src.Digest()); err != nil {
			return nil, errors.Join(err, src.Close())
		}
	}
	return src, nil
}

func stateText(st image.State) string { return fmt.Sprintf("%+v", st) }

// keep leaves a source open for the Ensure that is likely to follow.
func (s *Store) keep(src *image.Source) {
	s.mu.Lock()
	s.sources = append(s.sources, src)
	var old *image.Source
	if len(s.sources) > openSources || s.closed {
		old, s.sources = s.sources[0], s.sources[1:]
	}
	s.mu.Unlock()
	if old != nil {
		old.Close() // a file that was only read
	}
}

// kept gives a source that keep has left, which is then the caller's.
func (s *Store) kept(digest string) *image.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, src := range s.sources {
		if src.Digest() == digest {
			s.sources = append(s.sources[:i:i], s.sources[i+1:]...)
			return src
		}
	}
	return nil
}

// source opens the file of an image. The caller closes it.
func (s *Store) source(ctx context.Context, r Resolved, progress report) (*image.Source, error) {
	if src := s.kept(r.Digest); src != nil {
		if src.Unchanged() == nil {
			return src, nil
		}
		src.Close() // a file that was only read
	}
	f, err := s.file(ctx, r, progress)
	if err != nil {
		return nil, err
	}
	src, err := s.read(ctx, f, r.Size, progress)
	if err != nil {
		return nil, err
	}
	if src.Digest() == r.Digest {
		return src, nil
	}
	err = errors.Join(image.ErrChanged, src.Close())
	if r.ref.Scheme == reference.ORAS {
		err = errors.Join(err, s.cache.Forget(r.Digest))
	}
	return nil, err
}

func (s *Store) file(ctx context.Context, r Resolved, progress report) (*os.File, error) {
	if r.ref.Scheme == reference.ORAS {
		return s.cache.Download(ctx, r.Digest, func(f *os.File) error {
			return s.oras.Download(ctx, r.artifact, f, progress.bytes(Downloading, r.Size))
		})
	}
	return reference.Directories(s.o.Directories).Open(r.ref)
}

// Pull is an image that can be pulled until it is released.
type Pull struct {
	// Reference is what to pull: 127.0.0.1:PORT/sif/NAME@sha256:...
	Reference string
	// Username and Password are the login that PullImage needs.
	Username, Password string
	// Digest is that of the OCI manifest.
	Digest string
	// ImageID is that of the OCI configuration, which is what runtimes call the image's id: an
	// image that they have under it need not be pulled, whatever its reference is.
	ImageID string
	// Layers are the digests of its layers, which are not compressed.
	Layers []string
	// Signers are the names of the keys that have signed; nil if none was asked for.
	Signers []string
	// Converted says that the image was converted for this call, and not before.
	Converted bool

	prepare func(context.Context, report) error
	release func() error
}

// Prepare makes the layers if they are not there, which is so when the image was converted
// long ago. A pull does the same by itself; but a runtime may lose patience with a
// registry that is silent for minutes, as it is when the image is very large. So prepare
// an image that the runtime does not have. progress may be nil.
func (p *Pull) Prepare(ctx context.Context, progress func(Progress)) error {
	return p.prepare(ctx, progress)
}

// Release ends the serving of the image, after the pull. Call it once.
func (p *Pull) Release() error { return p.release() }

// Ensure makes an image pullable: it checks its signature if one is required, converts it
// unless that was done before, and serves it until the Pull is released. Calls for the
// same image share the work. progress may be nil.
func (s *Store) Ensure(ctx context.Context, r Resolved, progress func(Progress)) (*Pull, error) {
	p, err := s.ensure(ctx, r, progress)
	return p, failed(r.Reference, err)
}

func (s *Store) ensure(ctx context.Context, r Resolved, progress report) (*Pull, error) {
	converted := false
	var sent *imports
	img, rec, err := s.cache.Make(ctx, r.Digest, s.wanted, func(w *cache.Work, rec *cache.Record) (*cache.Record, error) {
		had := rec != nil
		var err error
		rec, sent, err = s.make(ctx, r, w, rec, progress)
		converted = err == nil && !had
		return rec, err
	})
	if err != nil {
		return nil, errors.Join(err, sent.release(ctx))
	}
	served := &servedImage{store: s, resolved: r, image: img, record: rec}
	name := Namespace + "/" + registry.Name(path.Base(r.ref.Name+r.ref.Repository))
	remove, err := s.registry.Add(name, registry.Tag(r.Digest), served)
	if err != nil {
		return nil, errors.Join(err, img.Close(), sent.release(ctx))
	}
	p := &Pull{
		Reference: s.address + "/" + name + "@" + rec.Digest,
		Digest:    rec.Digest,
		ImageID:   rec.ConfigDigest,
		Converted: converted,
		prepare: func(ctx context.Context, progress report) error {
			if sent != nil {
				return nil
			}
			var err error
			sent, err = served.prepare(ctx, progress)
			return failed(r.Reference, err)
		},
		release: func() error {
			remove()
			return errors.Join(served.close(), sent.release(ctx))
		},
	}
	for _, l := range rec.Layers {
		p.Layers = append(p.Layers, l.Digest)
	}
	p.Username, p.Password = s.registry.Login()
	if s.o.Keys != nil {
		p.Signers = rec.Verified[s.o.Keys.ID()]
	}
	return p, nil
}

// wanted reports whether a record is all that is needed.
func (s *Store) wanted(rec *cache.Record) bool {
	if s.o.Keys == nil {
		return true
	}
	_, ok := rec.Verified[s.o.Keys.ID()]
	return ok
}

// make verifies and converts, as far as it is needed, out of one open file.
func (s *Store) make(ctx context.Context, r Resolved, w *cache.Work, rec *cache.Record, progress report) (_ *cache.Record, sent *imports, err error) {
	src, err := s.source(ctx, r, progress)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	img, err := image.Open(ctx, src, image.Options{Architecture: s.o.Architecture})
	if err != nil {
		return nil, nil, err
	}
	var signers []string
	if s.o.Keys != nil {
		if progress != nil {
			progress(Progress{Verifying, 0, src.Size()})
		}
		if signers, err = signature.Verify(ctx, img.File(), img.Used(), s.o.Keys); err != nil {
			return nil, nil, err
		}
	}
	if rec == nil {
		var res *image.Result
		if res, sent, err = s.convert(ctx, s.o.Importer, img, w, progress); err != nil {
			return nil, nil, err
		}
		rec = recordOf(img, res)
	}
	rec.AddName(r.ref.Pin("").String())
	if s.o.Keys != nil {
		if rec.Verified == nil {
			rec.Verified = map[string][]string{}
		}
		rec.Verified[s.o.Keys.ID()] = signers
	}
	return rec, sent, nil
}

// convert makes an image's layers: in the runtime's store where there is a way, which the
// imports then are, else in the cache.
func (s *Store) convert(ctx context.Context, to Importer, img *image.Image, w *cache.Work, progress report) (*image.Result, *imports, error) {
	o := image.ConvertOptions{MaxBytes: s.o.MaxImageBytes, Progress: progress.bytes(Converting, 0)}
	if to != nil && !s.o.KeepLayers {
		sent := &imports{}
		res, err := sent.into(ctx, to, img, o)
		if err == nil {
			return res, sent, nil
		}
		err = errors.Join(err, sent.release(ctx))
		if sent.failed == nil || ctx.Err() != nil {
			return nil, nil, err
		}
		s.o.Log.WarnContext(ctx, "the runtime does not take a converted layer, and will pull it", "error", err)
	}
	res, err := img.Convert(ctx, w.Layer, o)
	return res, nil, err
}

func recordOf(img *image.Image, res *image.Result) *cache.Record {
	rec := &cache.Record{
		Source:       img.Source().Digest(),
		Kind:         string(img.Kind),
		Architecture: img.Architecture,
		Manifest:     res.Manifest,
		Digest:       res.Digest,
		Config:       res.Config,
		ConfigDigest: res.ConfigDigest,
		ConvertedAt:  time.Now().UTC().Truncate(time.Second),
	}
	for _, l := range res.Layers {
		rec.Layers = append(rec.Layers, cache.Layer{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	return rec
}

// layersAgain makes the layers of a record once more, when a runtime asks for an image
// that was pulled and converted long ago.
func (s *Store) layersAgain(ctx context.Context, to Importer, r Resolved, w *cache.Work, rec *cache.Record, progress report) (sent *imports, err error) {
	src, err := s.source(ctx, r, progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	img, err := image.Open(ctx, src, image.Options{Architecture: s.o.Architecture})
	if err != nil {
		return nil, err
	}
	res, sent, err := s.convert(ctx, to, img, w, progress)
	if err != nil {
		return nil, err
	}
	if res.Digest != rec.Digest {
		err := fmt.Errorf("the image %s converts to %s, which was %s; remove it with v6node image rm", rec.Source, res.Digest, rec.Digest)
		return nil, errors.Join(err, sent.release(ctx))
	}
	return sent, nil
}
