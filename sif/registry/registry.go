package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Image is what the registry serves. Its methods may be called by many goroutines.
type Image interface {
	// Manifest gives the manifest, its media type and its digest.
	Manifest() (content []byte, mediaType, digest string)
	// Blob opens the configuration or a layer. Who calls it closes it. A digest that
	// does not belong to the image is ErrUnknown.
	Blob(ctx context.Context, digest string) (io.ReadSeekCloser, error)
	// BlobSize is how long a blob is; -1 if it does not belong to the image. It costs
	// nothing, as Blob may.
	BlobSize(digest string) int64
}

// ErrUnknown: the image has no such blob.
var ErrUnknown = errors.New("unknown blob")

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$`)
	tagForm    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

const maxName = 255

// Registry is the handler. It may be used by many goroutines.
type Registry struct {
	log      *slog.Logger
	user     string
	password string

	mu     sync.Mutex
	images []*added
}

// added is an image under its names.
type added struct {
	name, tag, digest string
	image             Image
}

// New makes a registry with no images and a login that no one can guess.
func New(log *slog.Logger) *Registry {
	return &Registry{log: log, user: "v6node", password: rand.Text()}
}

// Login is what a client has to show.
func (r *Registry) Login() (user, password string) { return r.user, r.password }

// Add serves an image under a name, by its digest and by a tag, until remove is called,
// which waits for no one: who has begun to read may go on. An image may be added twice,
// and then is there until it was removed twice.
func (r *Registry) Add(name, tag string, image Image) (remove func(), err error) {
	if len(name) > maxName || !nameForm.MatchString(name) || !tagForm.MatchString(tag) {
		return nil, fmt.Errorf("%q:%q is no name for an image in a registry", name, tag)
	}
	_, _, digest := image.Manifest()
	a := &added{name, tag, digest, image}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = append(r.images, a)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.images = slices.DeleteFunc(r.images, func(b *added) bool { return a == b })
	}, nil
}

// find gives the newest image for which ok holds.
func (r *Registry) find(name string, ok func(*added) bool) Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range slices.Backward(r.images) {
		if a.name == name && ok(a) {
			return a.image
		}
	}
	return nil
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	user, password, _ := req.BasicAuth()
	if !same(user, r.user) || !same(password, r.password) {
		h.Set("WWW-Authenticate", `Basic realm="v6node"`)
		h.Set("Connection", "close") // any user of the machine comes here; none may hold connections
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "a login is required")
		return
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
		return
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if ok && rest == "" {
		h.Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
		return
	}
	if name, ref, ok := cutLast(rest, "/manifests/"); ok {
		r.manifest(w, req, name, ref)
		return
	}
	if name, digest, ok := cutLast(rest, "/blobs/"); ok {
		r.blob(w, req, name, digest)
		return
	}
	fail(w, http.StatusNotFound, "UNSUPPORTED", "there is nothing here")
}

// same compares in a time that tells nothing.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (r *Registry) manifest(w http.ResponseWriter, req *http.Request, name, ref string) {
	image := r.find(name, func(a *added) bool { return ref == a.digest || ref == a.tag })
	if image == nil {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "there is no such image")
		return
	}
	content, mediaType, digest := image.Manifest()
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(content)))
	h.Set("Docker-Content-Digest", digest)
	h.Set("Etag", `"`+digest+`"`)
	if req.Method == http.MethodGet {
		w.Write(content) // a client that went away is no failure
	}
}

func (r *Registry) blob(w http.ResponseWriter, req *http.Request, name, digest string) {
	if !digestForm.MatchString(digest) {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "only SHA-256 digests are known")
		return
	}
	image := r.find(name, func(a *added) bool { return a.image.BlobSize(digest) >= 0 })
	if image == nil {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "there is no such blob")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", digest)
	h.Set("Etag", `"`+digest+`"`)
	h.Set("Accept-Ranges", "bytes")
	if req.Method == http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(image.BlobSize(digest), 10))
		return
	}
	b, err := image.Blob(req.Context(), digest)
	if err != nil {
		if req.Context().Err() == nil {
			r.log.ErrorContext(req.Context(), "a layer cannot be served", "image", name, "digest", digest, "error", err)
		}
		for _, k := range []string{"Docker-Content-Digest", "Etag", "Accept-Ranges"} {
			h.Del(k)
		}
		fail(w, http.StatusInternalServerError, "UNKNOWN", "the layer cannot be made; the node's log has the reason")
		return
	}
	defer b.Close()
	http.ServeContent(w, req, "", time.Time{}, b)
}

// fail answers as the distribution specification wants errors.
func fail(w http.ResponseWriter, status int, code, message string) {
	body, err := json.Marshal(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
	if err != nil {
		body = nil // strings always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body) // a client that went away is no failure
}

// Name makes a name for a registry out of any text: what it does not allow becomes a
// hyphen, and what is nothing becomes "image".
func Name(text string) string {
	var b strings.Builder
	gap := true
	for _, c := range strings.ToLower(text) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
			gap = false
		} else if !gap {
			b.WriteByte('-')
			gap = true
		}
		if b.Len() >= 96 {
			break
		}
	}
	if name := strings.Trim(b.String(), "-"); name != "" {
		return name
	}
	return "image"
}

// Tag is the tag under which the image of a SIF file with this digest is served.
func Tag(digest string) string {
	return "sif-" + strings.TrimPrefix(digest, "sha256:")
}
