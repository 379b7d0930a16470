package imagekit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// RegistryOptions configure a registry; the zero value serves everybody on a free
// loopback port.
type RegistryOptions struct {
	Listen string // default 127.0.0.1:0
	// Username and Password are asked for (Basic) when Username is not empty.
	Username, Password string
	// Token makes the login one for a token service, /token, as the large registries
	// have it: only a token that it gave opens the registry.
	Token bool
	// IdentityToken is what the token service takes in place of the login.
	IdentityToken string
	// Referrers makes the registry tell what refers to an image (OCI 1.1). Without, that is in an index at a tag.
	Referrers bool
	// TLS, if set, makes it HTTPS.
	TLS *tls.Config
}

// Registry is an OCI registry in memory. Its methods may be called from any
// goroutine.
type Registry struct {
	opt   RegistryOptions
	store http.Handler
	host  string
	token string // what the token service gives
	srv   *http.Server
	done  chan struct{}

	mu     sync.Mutex
	counts Counts
	refuse int
	held   chan struct{} // blob downloads wait for its closing; nil = none wait
	waits  int           // blob downloads that wait
	change chan struct{}
}

// Counts says how often something was asked for.
type Counts struct {
	Manifests int // GET and HEAD of manifests
	Blobs     int // GET of blobs
	Denied    int // answers 401, 403 and what Refuse makes
}

// Ref is an image in a registry.
type Ref struct {
	Tag    string // host/repository:tag
	Pinned string // host/repository@sha256:...
	Digest string // sha256:...
}

// Serve starts a registry. It ends when ctx ends or Close is called.
func Serve(ctx context.Context, o RegistryOptions) (*Registry, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("image registry: %w", err)
	}
	r := &Registry{
		opt: o, store: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(o.Referrers)),
		host: ln.Addr().String(), token: rand.Text(), done: make(chan struct{}), change: make(chan struct{}),
	}
	if o.TLS != nil {
		ln = tls.NewListener(ln, o.TLS)
	}
	r.srv = &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: r, ReadHeaderTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() { r.srv.Close() })
	go func() {
		defer close(r.done)
		defer stop()
		// Serve returns only because of Close, or because the listener broke: then
		// pulls fail with a clear error of their own.
		_ = r.srv.Serve(ln)
	}()
	return r, nil
}

// Close ends the registry. It may be called more than once.
func (r *Registry) Close() {
	r.srv.Close()
	<-r.done
}

// Host returns the registry's address, 127.0.0.1:PORT.
func (r *Registry) Host() string { return r.host }

// Counts returns what was asked for so far.
func (r *Registry) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// Refuse answers everything with this status; 0 ends that.
func (r *Registry) Refuse(code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = code
}

// HoldBlobs makes downloads of blobs hang after they were asked for, as with a dead
// line, until release is called.
func (r *Registry) HoldBlobs() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(chan struct{})
	}
	gate := r.held
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.held == gate {
			r.held = nil
		}
		close(gate)
	})
}

// WaitHeld waits until at least n downloads hang.
func (r *Registry) WaitHeld(ctx context.Context, n int) error {
	for {
		r.mu.Lock()
		waits, change := r.waits, r.change
		r.mu.Unlock()
		if waits >= n {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Registry) addWait(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waits += n
	close(r.change)
	r.change = make(chan struct{})
}

// ServeHTTP answers pulls, and pushes of those who may.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.opt.Token && req.URL.Path == "/token" {
		r.giveToken(w, req)
		return
	}
	blob := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/")
	r.mu.Lock()
	switch {
	case blob:
		r.counts.Blobs++
	case strings.Contains(req.URL.Path, "/manifests/") && req.Method != http.MethodPut:
		r.counts.Manifests++
	}
	refuse, held := r.refuse, r.held
	if refuse == 0 && !r.mayEnter(req) {
		refuse = http.StatusUnauthorized
	}
	if refuse != 0 {
		r.counts.Denied++
	}
	r.mu.Unlock()
	if refuse != 0 {
		r.deny(w, refuse)
		return
	}
	if blob && held != nil {
		r.addWait(1)
		defer r.addWait(-1)
		select {
		case <-held:
		case <-req.Context().Done():
			return
		}
	}
	r.store.ServeHTTP(w, req)
}

func (r *Registry) mayEnter(req *http.Request) bool {
	if r.opt.Username == "" {
		return true
	}
	if r.opt.Token {
		return req.Header.Get("Authorization") == "Bearer "+r.token
	}
	return r.isUser(req)
}

// giveToken is the token service: by GET with a login, by POST (OAuth2) with an
// identity token.
func (r *Registry) giveToken(w http.ResponseWriter, req *http.Request) {
	ok := r.isUser(req)
	if req.Method == http.MethodPost {
		ok = r.opt.IdentityToken != "" && req.FormValue("grant_type") == "refresh_token" && req.FormValue("refresh_token") == r.opt.IdentityToken
	}
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"token":%q,"access_token":%q}`+"\n", r.token, r.token)
}

func (r *Registry) isUser(req *http.Request) bool {
	user, password, _ := req.BasicAuth()
	return subtle.ConstantTimeCompare([]byte(user), []byte(r.opt.Username)) == 1 &&
		subtle.ConstantTimeCompare([]byte(password), []byte(r.opt.Password)) == 1
}

func (r *Registry) deny(w http.ResponseWriter, code int) {
	name := map[int]string{http.StatusUnauthorized: "UNAUTHORIZED", http.StatusForbidden: "DENIED", http.StatusTooManyRequests: "TOOMANYREQUESTS"}[code]
	if name == "" {
		name = "UNKNOWN"
	}
	switch {
	case code != http.StatusUnauthorized:
	case r.opt.Token:
		scheme := "http"
		if r.opt.TLS != nil {
			scheme = "https"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s://%s/token",service="imagekit"`, scheme, r.host))
	default:
		w.Header().Set("WWW-Authenticate", `Basic realm="imagekit"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"refused by the registry"}]}`+"\n", name)
}

// Push stores an image under repository:tag. It goes to the store directly: no
// credentials, not counted.
func (r *Registry) Push(repository, tag string, img v1.Image) (Ref, error) {
	layers, err := img.Layers()
	if err != nil {
		return Ref{}, err
	}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return Ref{}, err
		}
		stream, err := l.Compressed()
		if err != nil {
			return Ref{}, err
		}
		content, err := io.ReadAll(stream)
		if err := errors.Join(err, stream.Close()); err != nil {
			return Ref{}, err
		}
		if err := r.pushBlob(repository, d, content); err != nil {
			return Ref{}, err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return Ref{}, err
	}
	d, err := img.ConfigName()
	if err != nil {
		return Ref{}, err
	}
	if err := r.pushBlob(repository, d, config); err != nil {
		return Ref{}, err
	}
	return r.pushManifest(repository, tag, img)
}

// PushIndex stores a multi-platform index and its images under repository:tag.
func (r *Registry) PushIndex(repository, tag string, index v1.ImageIndex) (Ref, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return Ref{}, err
	}
	for _, d := range m.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			return Ref{}, err
		}
		if _, err := r.Push(repository, d.Digest.String(), img); err != nil {
			return Ref{}, err
		}
	}
	return r.pushManifest(repository, tag, index)
}

// PushReferrers stores artifacts that refer to the image with that digest, as clients do: where the registry does not
// tell what refers to an image, at the tag sha256-DIGEST too.
func (r *Registry) PushReferrers(repository, digest string, all ...v1.Image) error {
	var adds []mutate.IndexAddendum
	for _, img := range all {
		d, err := partial.Descriptor(img)
		if err != nil {
			return err
		}
		m, err := img.Manifest()
		if err != nil {
			return err
		}
		if _, err := r.Push(repository, d.Digest.String(), img); err != nil {
			return err
		}
		d.ArtifactType, d.Annotations = string(m.Layers[0].MediaType), m.Annotations
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: *d})
	}
	if r.opt.Referrers {
		return nil
	}
	_, err := r.PushIndex(repository, strings.Replace(digest, ":", "-", 1), mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...))
	return err
}

func (r *Registry) pushBlob(repository string, d v1.Hash, content []byte) error {
	return r.put(http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", content)
}

// manifest is what images and indexes have in common.
type manifest interface {
	Digest() (v1.Hash, error)
	RawManifest() ([]byte, error)
}

func (r *Registry) pushManifest(repository, tag string, m manifest) (Ref, error) {
	raw, err := m.RawManifest()
	if err != nil {
		return Ref{}, err
	}
	d, err := m.Digest()
	if err != nil {
		return Ref{}, err
	}
	mediaType := "application/vnd.oci.image.manifest.v1+json"
	if _, isIndex := m.(v1.ImageIndex); isIndex {
		mediaType = "application/vnd.oci.image.index.v1+json"
	}
	if err := r.put(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, mediaType, raw); err != nil {
		return Ref{}, err
	}
	name := r.host + "/" + repository
	return Ref{Tag: name + ":" + tag, Pinned: name + "@" + d.String(), Digest: d.String()}, nil
}

// put hands a request to the store without going over the network.
func (r *Registry) put(method, target, mediaType string, body []byte) error {
	req, err := http.NewRequest(method, "http://"+r.host+target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	rec := httptest.NewRecorder()
	r.store.ServeHTTP(rec, req)
	if rec.Code != http.StatusCreated {
		return fmt.Errorf("the registry answered %d to %s: %s", rec.Code, target, strings.TrimSpace(rec.Body.String()))
	}
	return nil
}
