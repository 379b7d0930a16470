package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// served is an image of another library, as this package wants it.
type served struct {
	tb       testing.TB
	manifest []byte
	digest   string
	blobs    map[string][]byte
	broken   bool
}

func newServed(tb testing.TB) *served {
	tb.Helper()
	img, err := random.Image(10_000, 2)
	if err != nil {
		tb.Fatal(err)
	}
	s := &served{tb: tb, blobs: map[string][]byte{}}
	must := func(b []byte, err error) []byte {
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	s.manifest = must(img.RawManifest())
	d, err := img.Digest()
	if err != nil {
		tb.Fatal(err)
	}
	s.digest = d.String()
	config, err := img.ConfigName()
	if err != nil {
		tb.Fatal(err)
	}
	s.blobs[config.String()] = must(img.RawConfigFile())
	layers, err := img.Layers()
	if err != nil {
		tb.Fatal(err)
	}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			tb.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			tb.Fatal(err)
		}
		s.blobs[d.String()] = must(io.ReadAll(r))
	}
	return s
}

func (s *served) Manifest() ([]byte, string, string) {
	return s.manifest, "application/vnd.docker.distribution.manifest.v2+json", s.digest
}

func (s *served) BlobSize(digest string) int64 {
	if b, ok := s.blobs[digest]; ok {
		return int64(len(b))
	}
	return -1
}

type closer struct{ *bytes.Reader }

func (closer) Close() error { return nil }

func (s *served) Blob(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	if s.broken {
		return nil, errors.New("a secret reason")
	}
	return closer{bytes.NewReader(s.blobs[digest])}, nil
}

func (s *served) anyBlob() (digest string, content []byte) {
	for digest, content = range s.blobs {
		if len(content) > 5000 {
			return digest, content
		}
	}
	s.tb.Fatal("no layer")
	return "", nil
}

// start serves an image as sif/a:tag.
func start(t *testing.T) (*Registry, *served, *httptest.Server, func()) {
	t.Helper()
	r := New(slog.New(slog.DiscardHandler))
	s := newServed(t)
	remove, err := r.Add("sif/a", "tag", s)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, s, server, remove
}

func ask(t *testing.T, r *Registry, server *httptest.Server, method, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r != nil {
		req.SetBasicAuth(r.Login())
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func TestAnotherLibraryPullsAndValidatesTheImage(t *testing.T) {
	r, s, server, _ := start(t)
	user, password := r.Login()
	for _, ref := range []string{"@" + s.digest, ":tag"} {
		n, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/sif/a" + ref)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(n, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: user, Password: password})), remote.WithPlatform(v1.Platform{}))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img); err != nil {
			t.Error(err)
		}
	}
}

func TestHeadersAreWhatTheSpecificationWants(t *testing.T) {
	r, s, server, _ := start(t)
	digest, content := s.anyBlob()
	for path, want := range map[string]struct {
		digest string
		body   []byte
	}{"/v2/sif/a/manifests/" + s.digest: {s.digest, s.manifest}, "/v2/sif/a/manifests/tag": {s.digest, s.manifest}, "/v2/sif/a/blobs/" + digest: {digest, content}} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			resp, body := ask(t, r, server, method, path)
			if method == http.MethodHead {
				want.body = nil
			} else if int64(len(want.body)) != resp.ContentLength {
				t.Errorf("%s %s: a length of %d", method, path, resp.ContentLength)
			}
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Content-Digest") != want.digest || !bytes.Equal(body, want.body) ||
				resp.ContentLength <= 0 || resp.Header.Get("Content-Type") == "" {
				t.Errorf("%s %s: %s, %v, %d bytes", method, path, resp.Status, resp.Header, len(body))
			}
		}
	}
	if resp, _ := ask(t, r, server, http.MethodGet, "/v2/"); resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
}

func TestAPartOfALayerCanBeAskedFor(t *testing.T) {
	r, s, server, _ := start(t)
	digest, content := s.anyBlob()
	for rng, want := range map[string][]byte{"bytes=100-199": content[100:200], "bytes=5000-": content[5000:], "bytes=-10": content[len(content)-10:]} {
		resp, body := ask(t, r, server, http.MethodGet, "/v2/sif/a/blobs/"+digest, "Range", rng)
		if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, want) {
			t.Errorf("%s: %s, %d bytes", rng, resp.Status, len(body))
		}
	}
	if resp, _ := ask(t, r, server, http.MethodGet, "/v2/sif/a/blobs/"+digest, "Range", "bytes=99999999-"); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Error(resp.Status)
	}
}

func TestWithoutTheLoginThereIsNothing(t *testing.T) {
	r, s, server, _ := start(t)
	other := New(slog.New(slog.DiscardHandler))
	for _, who := range []*Registry{nil, other} {
		for _, path := range []string{"/v2/", "/v2/sif/a/manifests/" + s.digest, "/v2/sif/none/manifests/x", "/"} {
			resp, body := ask(t, who, server, http.MethodGet, path)
			if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" || !resp.Close || bytes.Contains(body, []byte("schemaVersion")) {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
	}
	if _, p := r.Login(); len(p) < 20 {
		t.Errorf("the password has %d characters", len(p))
	}
}

func TestNothingIsListedAndNothingCanBeChanged(t *testing.T) {
	r, s, server, _ := start(t)
	digest, _ := s.anyBlob()
	for _, path := range []string{"/", "/v2", "/v2/_catalog", "/v2/sif/a/tags/list", "/v2/sif/a/manifests/", "/v2/sif/a/manifests/other", "/v2/sif/b/manifests/tag",
		"/v2/sif/a/blobs/", "/v2/sif/a/blobs/sha256:" + strings.Repeat("0", 64), "/v2/sif/a/blobs/../../x", "/v2/sif/b/blobs/" + digest, "/v2/sif/a/referrers/" + s.digest} {
		if resp, _ := ask(t, r, server, http.MethodGet, path); resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		if resp, _ := ask(t, r, server, method, "/v2/sif/a/manifests/tag"); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
}

func TestAnImageIsServedUntilItIsRemovedAsOftenAsItWasAdded(t *testing.T) {
	r, s, server, first := start(t)
	second, err := r.Add("sif/a", "tag", s)
	if err != nil {
		t.Fatal(err)
	}
	status := func() int {
		resp, _ := ask(t, r, server, http.MethodGet, "/v2/sif/a/manifests/"+s.digest)
		return resp.StatusCode
	}
	if first(); status() != http.StatusOK {
		t.Error("the second one went with the first")
	}
	if second(); status() != http.StatusNotFound {
		t.Error("still there")
	}
	second()
}

func TestAFailureSaysNothingOfItsReason(t *testing.T) {
	r, s, server, _ := start(t)
	s.broken = true
	digest, _ := s.anyBlob()
	resp, body := ask(t, r, server, http.MethodGet, "/v2/sif/a/blobs/"+digest)
	if resp.StatusCode != http.StatusInternalServerError || bytes.Contains(body, []byte("secret")) || resp.Header.Get("Docker-Content-Digest") != "" {
		t.Errorf("%s, %v: %s", resp.Status, resp.Header, body)
	}
}

func TestAnyTextMakesAName(t *testing.T) {
	for text, want := range map[string]string{"R-4.3_x86.sif": "r-4-3-x86-sif", "a": "a", "---": "image", "": "image", "ÄÖ!": "image", "a//B c": "a-b-c"} {
		if got := Name(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	if n := Name(strings.Repeat("a", 1000)); len(n) > 100 || !nameForm.MatchString(n) {
		t.Errorf("%q", n)
	}
	r := New(slog.New(slog.DiscardHandler))
	for _, bad := range []string{"", "A", "a b", "../a", "a/", strings.Repeat("a", 300)} {
		if _, err := r.Add(bad, "tag", newServed(t)); err == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "localhost:0", "192.0.2.1:0", "example.org:80"} {
		if l, err := Listen(t.Context(), address); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v, %v", address, l, err)
		}
	}
}

func TestServingEndsWithItsContext(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Serve(ctx, l, New(slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
	}()
	resp, err := http.Get("http://" + l.Addr().String() + "/v2/")
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzRequest sends any request. Without the login it gets nothing, and with it no more
// than the image that is served.
func FuzzRequest(f *testing.F) {
	r := New(slog.New(slog.DiscardHandler))
	s := newServed(f)
	if _, err := r.Add("sif/a", "tag", s); err != nil {
		f.Fatal(err)
	}
	digest, content := s.anyBlob()
	for _, path := range []string{"/v2/", "/v2/sif/a/manifests/tag", "/v2/sif/a/blobs/" + digest, "/v2/sif/a/blobs/../../../etc/passwd", "//v2//", "/v2/_catalog"} {
		for _, rng := range []string{"", "bytes=0-1", "bytes=-1", "bytes=1-0", "bytes=0-,0-,0-", "bytes=9223372036854775807-", "bytes=0-0,-1"} {
			f.Add("GET", path, rng)
		}
		f.Add("HEAD", path, "")
		f.Add("PUT", path, "")
	}
	f.Fuzz(func(t *testing.T, method, path, rng string) {
		req, err := http.NewRequest(method, "http://x/", nil)
		if err != nil {
			return
		}
		req.URL.Path = path
		req.Header.Set("Range", rng)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code != http.StatusUnauthorized || bytes.Contains(w.Body.Bytes(), content[:32]) {
			t.Errorf("without a login: %d", w.Code)
		}
		req.SetBasicAuth(r.Login())
		w = httptest.NewRecorder()
		r.ServeHTTP(w, req)
		body := w.Body.Bytes()
		switch w.Code {
		case http.StatusOK:
			known := string(body) == "{}" || bytes.Equal(body, s.manifest) || len(body) == 0 && req.Method == http.MethodHead
			for _, b := range s.blobs {
				known = known || bytes.Equal(body, b)
			}
			if !known {
				t.Errorf("%d bytes that are nothing of the image", len(body))
			}
		case http.StatusPartialContent: // several parts come with a header each
			if len(body) > len(content)+len(rng)*1024 {
				t.Errorf("%d bytes of a blob with %d", len(body), len(content))
			}
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestedRangeNotSatisfiable:
		default:
			t.Errorf("status %d", w.Code)
		}
	})
}
