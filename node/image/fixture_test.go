package image

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/v6node/v6node/node/image/credentials"
)

// fixture is a real registry on loopback, with a hook in front of it.
type fixture struct {
	host     string
	requests atomic.Int64 // after push
	hook     atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newFixture(t testing.TB, o ...registry.Option) *fixture {
	t.Helper()
	f := &fixture{}
	store := registry.New(append(o, registry.Logger(log.New(io.Discard, "", 0)))...)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.requests.Add(1)
		if hook := f.hook.Load(); hook != nil && (*hook)(w, r) {
			return
		}
		store.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	f.host = strings.TrimPrefix(s.URL, "http://")
	return f
}

// answer sets what stands before the registry: true means that the request is answered.
func (f *fixture) answer(h func(w http.ResponseWriter, r *http.Request) bool) { f.hook.Store(&h) }

// requireLogin makes the registry ask for basic authentication.
func (f *fixture) requireLogin(user, password string) {
	f.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
}

// push stores an image or index and returns its digest.
func (f *fixture) push(t testing.TB, repo string, what remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(f.host+"/"+repo, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(ref, what, remote.WithAuth(authn.Anonymous))
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, what, remote.WithAuth(authn.Anonymous))
	default:
		err = remote.Put(ref, what, remote.WithAuth(authn.Anonymous))
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}
	f.requests.Store(0)
	return d.Digest.String()
}

// image makes an image for a platform; each tag of text is another image.
func testImage(t testing.TB, arch, text string) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, Author: text})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// testIndex makes an index with one image for each platform; "" leaves the platform out of the index.
func testIndex(t testing.TB, arch string, platforms ...string) v1.ImageIndex {
	t.Helper()
	var adds []mutate.IndexAddendum
	for i, p := range platforms {
		add := mutate.IndexAddendum{Add: testImage(t, arch, fmt.Sprint(p, i))}
		if p != "" {
			os, a, _ := strings.Cut(p, "/")
			add.Descriptor = v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: a}}
		}
		adds = append(adds, add)
	}
	return mutate.IndexMediaType(mutate.AppendManifests(empty.Index, adds...), types.OCIImageIndex)
}

func newResolver(t testing.TB, o Options) *Resolver {
	t.Helper()
	if o.Architecture == "" {
		o.Architecture = "amd64"
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	r := New(o)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func login(registry, username, password string) Login {
	return Login{Registry: registry, Username: username, Password: password}
}

func withLogins(all ...Login) *Access {
	return &Access{Logins: credentials.New(credentials.Options{Logins: all})}
}

func resolve(t testing.TB, r *Resolver, ref string) Resolved {
	t.Helper()
	got, err := r.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func testContext(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 30*time.Second)
}
