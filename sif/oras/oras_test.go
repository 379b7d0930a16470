package oras

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/v6node/v6node/sif/reference"
)

// upstream is a registry with one artifact, in which everything can go wrong.
type upstream struct {
	*httptest.Server
	manifest []byte
	blob     []byte
	user     string // "" wants no login

	mu       sync.Mutex
	requests []string                                                 // of the blob: their Range
	answer   func(n int, w http.ResponseWriter, r *http.Request) bool // false: as usual
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func newUpstream(t *testing.T, size int) *upstream {
	t.Helper()
	u := &upstream{blob: make([]byte, size)}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range u.blob {
		u.blob[i] = byte(r.Uint32())
	}
	u.describe(LayerType, digestOf(u.blob), int64(size))
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) describe(mediaType, digest string, size int64) {
	u.manifest, _ = json.Marshal(map[string]any{
		"schemaVersion": 2, "config": map[string]any{"mediaType": "application/vnd.sylabs.sif.config.v1+json", "size": 2, "digest": digestOf([]byte("{}"))},
		"layers": []any{map[string]any{"mediaType": mediaType, "digest": digest, "size": size}},
	})
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); u.user != "" && (user != u.user || password != "secret") {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch path := r.URL.Path; {
	case path == "/v2/":
	case path == "/v2/g/i/manifests/1.0", path == "/v2/g/i/manifests/"+digestOf(u.manifest):
		w.Header().Set("Content-Type", manifestType)
		w.Write(u.manifest)
	case strings.HasPrefix(path, "/v2/g/i/blobs/"):
		u.mu.Lock()
		u.requests = append(u.requests, r.Header.Get("Range"))
		n := len(u.requests)
		u.mu.Unlock()
		if u.answer == nil || !u.answer(n, w, r) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(u.blob))
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (u *upstream) ref(t *testing.T, suffix string) reference.Reference {
	t.Helper()
	r, err := reference.Parse("oras://" + strings.TrimPrefix(u.URL, "http://") + "/g/i" + suffix)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (u *upstream) resolve(t *testing.T, c *Client) Artifact {
	t.Helper()
	a, err := c.Resolve(t.Context(), u.ref(t, ":1.0"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func part(t *testing.T, have []byte) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "part"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(have); err != nil {
		t.Fatal(err)
	}
	return f
}

func wantContent(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	got, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes that are not the %d wanted ones, %v", len(got), len(want), err)
	}
}

func TestAnArtifactIsResolvedAndDownloaded(t *testing.T) {
	u := newUpstream(t, 3<<20)
	c := New(Options{})
	a := u.resolve(t, c)
	if a.Digest != digestOf(u.blob) || a.Size != int64(len(u.blob)) || a.Manifest != digestOf(u.manifest) {
		t.Errorf("%+v", a)
	}
	f, last := part(t, nil), int64(0)
	if err := c.Download(t.Context(), a, f, func(n int64) { last = n }); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, u.blob)
	if last != a.Size {
		t.Errorf("the last progress was %d", last)
	}
	if b, err := c.Resolve(t.Context(), u.ref(t, ":other@"+a.Manifest)); err != nil || b.Digest != a.Digest {
		t.Errorf("by digest: %+v, %v", b, err)
	}
}

func TestADownloadGoesOnWhereItStopped(t *testing.T) {
	u := newUpstream(t, 1<<20)
	c := New(Options{})
	a := u.resolve(t, c)
	f := part(t, u.blob[:700_000])
	if err := c.Download(t.Context(), a, f, nil); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, u.blob)
	if len(u.requests) != 1 || u.requests[0] != "bytes=700000-" {
		t.Errorf("asked for %q", u.requests)
	}
	// What is there as a whole is only verified.
	if err := c.Download(t.Context(), a, f, nil); err != nil || len(u.requests) != 1 {
		t.Errorf("%v, %q", err, u.requests)
	}
}

func TestAConnectionThatBreaksIsTakenUpAgain(t *testing.T) {
	u := newUpstream(t, 1<<20)
	u.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 3 {
			return false
		}
		var first int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first)
		w.Header().Set("Content-Length", fmt.Sprint(len(u.blob)-first))
		if first > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(u.blob)-1, len(u.blob)))
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(u.blob[first : first+200_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	f := part(t, nil)
	c := New(Options{})
	if err := c.Download(t.Context(), u.resolve(t, c), f, nil); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, u.blob)
	if len(u.requests) != 4 {
		t.Errorf("asked for %q", u.requests)
	}
}

func TestARegistryThatKnowsNoRangesStartsAnew(t *testing.T) {
	u := newUpstream(t, 1<<20)
	u.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	}
	f := part(t, []byte("what is not the start of the file"))
	c := New(Options{})
	if err := c.Download(t.Context(), u.resolve(t, c), f, nil); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, u.blob)
}

func TestAPartThatIsWrongIsThrownAway(t *testing.T) {
	u := newUpstream(t, 1<<20)
	c := New(Options{})
	a := u.resolve(t, c)
	f := part(t, make([]byte, 1000))
	if err := c.Download(t.Context(), a, f, nil); !errors.Is(err, ErrDigest) {
		t.Fatalf("got %v", err)
	}
	wantContent(t, f, nil)
	if err := c.Download(t.Context(), a, f, nil); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, u.blob)
	if err := f.Truncate(2 << 20); err != nil { // more than there is
		t.Fatal(err)
	}
	if err := c.Download(t.Context(), a, f, nil); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, u.blob)
}

func TestARegistryThatStopsSendingIsAskedAgainAndThenGivenUp(t *testing.T) {
	u := newUpstream(t, 1<<20)
	u.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(u.blob)))
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	c := New(Options{Stall: 20 * time.Millisecond, Attempts: 2})
	if err := c.Download(t.Context(), u.resolve(t, c), part(t, nil), nil); !errors.Is(err, ErrUnreachable) || !errors.Is(err, errStalled) {
		t.Errorf("got %v", err)
	}
	if len(u.requests) != 2 {
		t.Errorf("asked %d times", len(u.requests))
	}
}

func TestARegistryThatLiesIsNotBelieved(t *testing.T) {
	for name, answer := range map[string]func(*upstream, http.ResponseWriter){
		"more than announced": func(u *upstream, w http.ResponseWriter) { w.Write(append(u.blob, 1, 2, 3)) },
		"something else":      func(u *upstream, w http.ResponseWriter) { w.Write(make([]byte, len(u.blob))) },
		"another part": func(u *upstream, w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 5-10/100")
			w.WriteHeader(http.StatusPartialContent)
			w.Write([]byte("other"))
		},
	} {
		u := newUpstream(t, 10_000)
		u.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool { answer(u, w); return true }
		c := New(Options{Attempts: 1})
		if err := c.Download(t.Context(), u.resolve(t, c), part(t, nil), nil); !errors.Is(err, ErrDigest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFailuresOfARegistryHaveKinds(t *testing.T) {
	status := func(code int) func(*upstream) {
		return func(u *upstream) {
			u.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
		}
	}
	for name, c := range map[string]struct {
		prepare func(*upstream)
		want    error
	}{
		"gone":         {status(http.StatusNotFound), ErrNotFound},
		"forbidden":    {status(http.StatusForbidden), ErrDenied},
		"broken":       {status(http.StatusInternalServerError), ErrUnreachable},
		"416 for ever": {status(http.StatusRequestedRangeNotSatisfiable), ErrUnreachable},
	} {
		u := newUpstream(t, 1000)
		c.prepare(u)
		client := New(Options{Attempts: 1})
		if err := client.Download(t.Context(), u.resolve(t, client), part(t, nil), nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	u := newUpstream(t, 1000)
	for name, c := range map[string]struct {
		manifest string
		want     error
	}{
		"an ordinary image": {`{"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + digestOf(nil) + `","size":1}]}`, ErrNotSIF},
		"no layers":         {`{}`, ErrNotSIF},
		"no JSON":           {`<html>`, ErrNotSIF},
		"negative size":     {`{"layers":[{"mediaType":"` + LayerType + `","digest":"` + digestOf(nil) + `","size":-1}]}`, ErrNotSIF},
		"no digest":         {`{"layers":[{"mediaType":"` + LayerType + `","digest":"sha256:../../x","size":1}]}`, ErrNotSIF},
		"too large":         {`{"layers":[{"mediaType":"` + LayerType + `","digest":"` + digestOf(nil) + `","size":1001}]}`, ErrTooLarge},
		"endless":           {strings.Repeat(" ", maxManifest+1), ErrNotSIF},
	} {
		u.manifest = []byte(c.manifest)
		if _, err := New(Options{MaxBytes: 1000}).Resolve(t.Context(), u.ref(t, ":1.0")); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{}).Resolve(t.Context(), u.ref(t, ":none")); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such tag: %v", err)
	}
	u.Close()
	if _, err := New(Options{}).Resolve(t.Context(), u.ref(t, ":1.0")); !errors.Is(err, ErrUnreachable) {
		t.Errorf("closed: %v", err)
	}
}

func TestAManifestWithAnotherDigestThanAskedForIsRefused(t *testing.T) {
	u := newUpstream(t, 1000)
	asked := u.ref(t, "@"+digestOf(u.manifest))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"layers":[]}`)) }))
	defer s.Close()
	asked.Registry = strings.TrimPrefix(s.URL, "http://")
	if _, err := New(Options{}).Resolve(t.Context(), asked); !errors.Is(err, ErrDigest) {
		t.Errorf("got %v", err)
	}
}

func TestTheLoginGoesToItsRegistryAndNowhereElse(t *testing.T) {
	u := newUpstream(t, 100_000)
	u.user = "node"
	var mu sync.Mutex
	var leaked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		leaked = append(leaked, r.Header.Get("Authorization"))
		mu.Unlock()
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(u.blob))
	}))
	defer elsewhere.Close()
	u.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+"/blob", http.StatusTemporaryRedirect)
		return true
	}
	if _, err := New(Options{}).Resolve(t.Context(), u.ref(t, ":1.0")); !errors.Is(err, ErrDenied) {
		t.Errorf("without a login: %v", err)
	}
	c := New(Options{Places: func(ctx context.Context, registry, repository string) ([]Place, error) {
		if registry != strings.TrimPrefix(u.URL, "http://") {
			t.Errorf("asked for %s", registry)
		}
		places, err := direct(ctx, registry, repository)
		if err == nil {
			places[0].Login = authn.FromConfig(authn.AuthConfig{Username: "node", Password: "secret"})
		}
		return places, err
	}})
	f := part(t, u.blob[:10])
	if err := c.Download(t.Context(), u.resolve(t, c), f, nil); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, u.blob)
	if len(leaked) != 1 || leaked[0] != "" {
		t.Errorf("the other server got %q", leaked)
	}
}

func TestADownloadEndsWithItsContext(t *testing.T) {
	u := newUpstream(t, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	u.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		cancel()
		<-r.Context().Done()
		return true
	}
	c := New(Options{})
	if err := c.Download(ctx, u.resolve(t, c), part(t, nil), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// FuzzManifest takes any text for an artifact's manifest. One that is accepted names a
// digest and a size within the limit.
func FuzzManifest(f *testing.F) {
	layer := `{"mediaType":"` + LayerType + `","digest":"` + digestOf(nil) + `","size":5}`
	for _, text := range []string{
		`{"layers":[` + layer + `]}`, `{"layers":[` + layer + `,` + layer + `]}`, `{"layers":[]}`, `{}`, `[]`, ``,
		strings.Replace(`{"layers":[`+layer+`]}`, `5`, `-5`, 1), strings.Replace(`{"layers":[`+layer+`]}`, `sha256:`, `sha256:../`, 1),
		strings.Replace(`{"layers":[`+layer+`]}`, `"size":5`, `"size":1e30`, 1),
	} {
		f.Add([]byte(text))
	}
	c := New(Options{MaxBytes: 1 << 30})
	f.Fuzz(func(t *testing.T, text []byte) {
		var a Artifact
		err := c.read(text, &a)
		switch {
		case err != nil && !errors.Is(err, ErrNotSIF) && !errors.Is(err, ErrTooLarge):
			t.Errorf("unexpected kind of error: %v", err)
		case err == nil && (!sha256Digest.MatchString(a.Digest) || a.Size <= 0 || a.Size > 1<<30):
			t.Errorf("accepted: %+v", a)
		}
	})
}
