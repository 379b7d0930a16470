package image

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/image/credentials"
	"github.com/v6node/v6node/node/image/hosts"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/sif/oras"
	sif "github.com/v6node/v6node/sif/reference"
)

// serve starts a registry that ends with the test.
func serve(t *testing.T, o imagekit.RegistryOptions) *imagekit.Registry {
	t.Helper()
	r, err := imagekit.Serve(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func pushTo(t *testing.T, r *imagekit.Registry, repository, tag string, img v1.Image) imagekit.Ref {
	t.Helper()
	ref, err := r.Push(repository, tag, img)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// certs is a certs.d.
type certs struct {
	t   *testing.T
	dir string
}

func newCerts(t *testing.T) certs { return certs{t, t.TempDir()} }

func (c certs) write(registry, file, text string) {
	c.t.Helper()
	err := os.MkdirAll(filepath.Join(c.dir, registry), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, registry, file), []byte(text), 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c certs) access(logins ...Login) *Access {
	return &Access{Hosts: hosts.Directories{c.dir}, Logins: credentials.New(credentials.Options{Logins: logins})}
}

func authority(t *testing.T) *imagekit.Authority {
	t.Helper()
	a, err := imagekit.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func secured(t *testing.T, a *imagekit.Authority, clients bool) imagekit.RegistryOptions {
	t.Helper()
	c, err := a.Server(clients)
	if err != nil {
		t.Fatal(err)
	}
	return imagekit.RegistryOptions{TLS: c}
}

// nowhere is a registry that no one answers for.
const nowhere = "registry.invalid"

func TestAMirrorWithAPrivateAuthorityAnswersForItsRegistry(t *testing.T) {
	ca := authority(t)
	for name, c := range map[string]struct {
		o     imagekit.RegistryOptions
		login func(host string) []Login
	}{
		"open":  {imagekit.RegistryOptions{}, func(string) []Login { return nil }},
		"basic": {imagekit.RegistryOptions{Username: "alice", Password: "pw"}, func(h string) []Login { return []Login{login(h, "alice", "pw")} }},
		"token": {imagekit.RegistryOptions{Username: "alice", Password: "pw", Token: true}, func(h string) []Login { return []Login{login(h, "alice", "pw")} }},
		"identity token": {imagekit.RegistryOptions{Username: "alice", Password: "pw", Token: true, IdentityToken: "id"}, func(h string) []Login {
			return []Login{{Registry: h, IdentityToken: "id"}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.TLS = secured(t, ca, true).TLS
			mirror := serve(t, c.o)
			ref := pushTo(t, mirror, "org/algo", "v1", testImage(t, "amd64", ""))
			d := newCerts(t)
			certificate, key, err := ca.Issue()
			if err != nil {
				t.Fatal(err)
			}
			d.write(nowhere, "ca.pem", string(ca.PEM))
			d.write(nowhere, "client.pem", string(certificate)+string(key))
			d.write(nowhere, "hosts.toml", fmt.Sprintf("server = \"https://%s\"\n[host.\"https://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = \"ca.pem\"\nclient = \"client.pem\"\n", nowhere, mirror.Host()))
			r := newResolver(t, Options{Access: d.access(c.login(mirror.Host())...), MirrorLogins: true})
			if got := resolve(t, r, nowhere+"/org/algo:v1"); got.Pinned != nowhere+"/org/algo@"+ref.Digest {
				t.Errorf("%+v", got)
			}
			if got := resolve(t, r, nowhere+"/org/algo@"+ref.Digest); got.Digest != ref.Digest {
				t.Errorf("%+v", got)
			}
			auth, err := r.Auth(t.Context(), nowhere+"/org/algo:v1")
			if err != nil {
				t.Fatal(err)
			}
			if (auth != nil) != (c.o.Username != "") || auth != nil && auth.Server != "https://"+mirror.Host() {
				t.Errorf("pulled as %+v", auth)
			}
			d.write(nowhere, "ca.pem", string(authority(t).PEM))
			other := newResolver(t, Options{Access: d.access(c.login(mirror.Host())...)})
			if _, err := other.Resolve(t.Context(), nowhere+"/org/algo:v1"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("another authority: %v", err)
			}
		})
	}
}

// Certificates alone, as Docker has them, are enough for a registry without mirrors.
func TestARegistryWithAPrivateAuthorityIsBelieved(t *testing.T) {
	ca := authority(t)
	o := secured(t, ca, false)
	o.Username, o.Password = "alice", "pw"
	origin := serve(t, o)
	ref := pushTo(t, origin, "org/algo", "v1", testImage(t, "amd64", ""))
	d := newCerts(t)
	r := newResolver(t, Options{Access: d.access(login(origin.Host(), "alice", "pw"))})
	if _, err := r.Resolve(t.Context(), ref.Tag); !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrInvalid) {
		t.Errorf("without the authority: %v", err)
	}
	d.write(strings.Replace(origin.Host(), ":", "_", 1)+"_", "ca.crt", string(ca.PEM))
	if got := resolve(t, r, ref.Tag); got.Digest != ref.Digest {
		t.Errorf("%+v", got)
	}
	if asked, err := r.TryLogin(t.Context(), login(origin.Host(), "alice", "pw")); err != nil || !asked {
		t.Errorf("%t, %v", asked, err)
	}
}

// mirrored writes a hosts.toml with plain mirrors of a registry.
func (c certs) mirrored(registry string, mirrors ...string) {
	text := ""
	for _, m := range mirrors {
		text += "[host.\"http://" + m + "\"]\n"
	}
	c.write(registry, "hosts.toml", text)
}

func TestWhatAMirrorDoesNotHaveTheNextPlaceMay(t *testing.T) {
	empty, full, origin := serve(t, imagekit.RegistryOptions{}), serve(t, imagekit.RegistryOptions{}), serve(t, imagekit.RegistryOptions{})
	pushTo(t, full, "org/algo", "v1", testImage(t, "amd64", "mirror"))
	want := pushTo(t, origin, "org/other", "v1", testImage(t, "amd64", "origin"))
	gone := serve(t, imagekit.RegistryOptions{})
	gone.Close()
	d := newCerts(t)
	d.mirrored(origin.Host(), gone.Host(), empty.Host(), full.Host())
	r := newResolver(t, Options{Access: d.access()})
	resolve(t, r, origin.Host()+"/org/algo:v1")
	if got := resolve(t, r, origin.Host()+"/org/other:v1"); got.Digest != want.Digest {
		t.Errorf("%+v", got)
	}
	if empty.Counts().Manifests == 0 {
		t.Error("the first mirror was passed over")
	}
	_, err := r.Resolve(t.Context(), origin.Host()+"/org/none:v1")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "the mirror "+full.Host()) || !strings.Contains(err.Error(), "its registry: ") {
		t.Errorf("%v", err)
	}
}

func TestAMirrorIsAskedForWhatItMayAnswerOnly(t *testing.T) {
	mirror, origin := serve(t, imagekit.RegistryOptions{}), serve(t, imagekit.RegistryOptions{})
	pushTo(t, mirror, "org/algo", "v1", testImage(t, "amd64", "old"))
	want := pushTo(t, origin, "org/algo", "v1", testImage(t, "amd64", "new"))
	d := newCerts(t)
	d.write(origin.Host(), "hosts.toml", "[host.\"http://"+mirror.Host()+"\"]\ncapabilities = [\"pull\"]\n")
	r := newResolver(t, Options{Access: d.access()})
	if got := resolve(t, r, origin.Host()+"/org/algo:v1"); got.Digest != want.Digest || mirror.Counts().Manifests != 0 {
		t.Errorf("%+v, %+v", got, mirror.Counts())
	}
	pushTo(t, mirror, "org/algo", "v1", testImage(t, "amd64", "only"))
	only := pushTo(t, mirror, "org/algo", "only", testImage(t, "amd64", "only"))
	resolve(t, r, origin.Host()+"/org/algo@"+only.Digest)
}

// A mirror that lies about a digest is not passed over in silence.
func TestAMirrorThatServesOtherContentIsRefused(t *testing.T) {
	origin := serve(t, imagekit.RegistryOptions{})
	want := pushTo(t, origin, "org/algo", "v1", testImage(t, "amd64", "good"))
	evil, err := testImage(t, "amd64", "evil").RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		w.Header().Set("Docker-Content-Digest", want.Digest)
		if strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodGet {
			_, _ = w.Write(evil)
		}
	}))
	defer mirror.Close()
	d := newCerts(t)
	d.mirrored(origin.Host(), strings.TrimPrefix(mirror.URL, "http://"))
	r := newResolver(t, Options{Access: d.access()})
	_, err = r.Resolve(t.Context(), origin.Host()+"/org/algo@"+want.Digest)
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "the mirror "+strings.TrimPrefix(mirror.URL, "http://")+" sent other bytes") {
		t.Errorf("%v", err)
	}
}

func TestTheLoginOfARegistryIsNotShownToItsMirror(t *testing.T) {
	origin := serve(t, imagekit.RegistryOptions{Username: "alice", Password: "pw"})
	want := pushTo(t, origin, "org/algo", "v1", testImage(t, "amd64", ""))
	var mu sync.Mutex
	var shown, asked []string
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Path+"?"+r.URL.RawQuery+" "+r.Header.Get("X-Key"))
		if a := r.Header.Get("Authorization"); a != "" {
			shown = append(shown, a)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer mirror.Close()
	d := newCerts(t)
	d.write(origin.Host(), "hosts.toml", "[host.\""+mirror.URL+"/cache\"]\n[host.\""+mirror.URL+"/cache\".header]\nx-key = \"k\"\n")
	r := newResolver(t, Options{Access: d.access(login(origin.Host(), "alice", "pw")), MirrorLogins: true})
	if got := resolve(t, r, origin.Host()+"/org/algo:v1"); got.Digest != want.Digest {
		t.Errorf("%+v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(shown) > 0 {
		t.Errorf("the mirror was shown %q", shown)
	}
	for _, a := range asked {
		if !strings.HasPrefix(a, "/cache/v2/") || !strings.HasSuffix(a, " k") {
			t.Errorf("the mirror was asked for %q", a)
		}
	}
	auth, err := r.Auth(t.Context(), origin.Host()+"/org/algo:v1")
	if err != nil || auth == nil || auth.Server != "https://"+origin.Host() {
		t.Errorf("pulled as %+v, %v", auth, err)
	}
}

func TestASignatureIsFoundAtAMirrorAndBehindIt(t *testing.T) {
	key, keys := loadKey(t)
	stranger, _ := loadKey(t)
	for _, referring := range []bool{false, true} {
		mirror := serve(t, imagekit.RegistryOptions{Referrers: true, Username: "alice", Password: "pw", Token: true})
		origin := serve(t, imagekit.RegistryOptions{})
		ref := pushTo(t, mirror, "org/algo", "v1", testImage(t, "amd64", ""))
		sign := func(r *imagekit.Registry, by *ecdsa.PrivateKey) {
			t.Helper()
			if !referring {
				s, err := imagekit.Sign(by, ref.Digest)
				if err != nil {
					t.Fatal(err)
				}
				pushTo(t, r, "org/algo", strings.Replace(ref.Digest, ":", "-", 1)+".sig", s)
				return
			}
			s, err := imagekit.Referrer(ref.Digest, signPredicate, bundleOf(t, by, ref.Digest, signPredicate))
			if err == nil {
				err = r.PushReferrers("org/algo", ref.Digest, s)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		d := newCerts(t)
		d.mirrored(origin.Host(), mirror.Host())
		access := d.access()
		access.Logins = withLogins(login(mirror.Host(), "alice", "pw")).Logins
		r := newResolver(t, Options{Access: access})
		got := resolve(t, r, origin.Host()+"/org/algo:v1")
		if _, err := r.Signed(t.Context(), got, keys); !errors.Is(err, ErrSignature) {
			t.Errorf("without a signature: %v", err)
		}
		sign(mirror, stranger)
		if _, err := r.Signed(t.Context(), got, keys); !errors.Is(err, ErrSignature) {
			t.Errorf("with a stranger's: %v", err)
		}
		sign(origin, key)
		if by, err := r.Signed(t.Context(), got, keys); err != nil || by != "k.pub" {
			t.Errorf("behind the mirror: %q, %v", by, err)
		}
		sign(mirror, key)
		origin.Close()
		if by, err := r.Signed(t.Context(), got, keys); err != nil || by != "k.pub" {
			t.Errorf("at the mirror: %q, %v", by, err)
		}
	}
}

func TestASIFFileIsDownloadedFromAMirror(t *testing.T) {
	ca := authority(t)
	o := secured(t, ca, false)
	o.Username, o.Password, o.Token = "alice", "pw", true
	mirror := serve(t, o)
	content := []byte(strings.Repeat("not really a SIF file", 1000))
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer: static.NewLayer(content, oras.LayerType), MediaType: oras.LayerType,
	})
	if err != nil {
		t.Fatal(err)
	}
	ref := pushTo(t, mirror, "org/algo", "v1", img)
	d := newCerts(t)
	d.write(nowhere, "ca.pem", string(ca.PEM))
	d.write(nowhere, "hosts.toml", "ca = \"ca.pem\"\n[host.\"https://"+mirror.Host()+"\"]\nca = \"ca.pem\"\n")
	client := oras.New(oras.Options{Places: SIFPlaces(d.access(login(mirror.Host(), "alice", "pw")))})
	asked, err := sif.Parse("oras://" + nowhere + "/org/algo:v1")
	if err != nil {
		t.Fatal(err)
	}
	a, err := client.Resolve(t.Context(), asked)
	if err != nil || a.Manifest != ref.Digest {
		t.Fatalf("%+v, %v", a, err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := client.Download(t.Context(), a, f, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20)); err != nil || string(got) != string(content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFilesThatCannotBeReadRefuseARegistryAndSayWhy(t *testing.T) {
	origin := serve(t, imagekit.RegistryOptions{})
	pushTo(t, origin, "org/algo", "v1", testImage(t, "amd64", ""))
	d := newCerts(t)
	d.write(origin.Host(), "hosts.toml", "server = ")
	r := newResolver(t, Options{Access: d.access()})
	if _, err := r.Resolve(t.Context(), origin.Host()+"/org/algo:v1"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "hosts.toml") {
		t.Errorf("%v", err)
	}
	missing := filepath.Join(t.TempDir(), "auth.json")
	broken := newResolver(t, Options{Access: &Access{Logins: credentials.New(credentials.Options{Files: []string{missing}})}})
	if _, err := broken.Resolve(t.Context(), origin.Host()+"/org/algo:v1"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), missing) {
		t.Errorf("%v", err)
	}
	if _, err := broken.Auth(t.Context(), origin.Host()+"/org/algo:v1"); err == nil {
		t.Error("a pull without the login that cannot be read")
	}
}

// A login that was replaced since it was remembered costs no run.
func TestALoginThatWasReplacedIsReadAgain(t *testing.T) {
	f := newFixture(t)
	digest := f.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	file := filepath.Join(t.TempDir(), "auth.json")
	replace := func(password string) {
		t.Helper()
		f.requireLogin("alice", password)
		if err := os.WriteFile(file, []byte(fmt.Sprintf(`{"auths":{%q:{"username":"alice","password":%q}}}`, f.host, password)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := newResolver(t, Options{Access: &Access{Logins: credentials.New(credentials.Options{Files: []string{file}})}, CacheFor: -1})
	for _, password := range []string{"old", "new"} {
		replace(password)
		if got := resolve(t, r, f.host+"/org/algo:v1"); got.Digest != digest {
			t.Errorf("%+v", got)
		}
	}
}

// failing is a runtime whose pulls end with an error.
type failing struct{ err error }

func (f failing) Image(context.Context, string) (*runtime.Image, error) {
	return nil, runtime.ErrImageNotFound
}

func (f failing) PullImage(context.Context, string, *runtime.Auth, runtime.PullOptions) (*runtime.Image, error) {
	return nil, f.err
}

func TestAFailedPullSaysThatNodeAndRuntimeMayHaveAskedOthers(t *testing.T) {
	c := newCerts(t)
	c.write("mirrored.example.org", "hosts.toml", "[host.\"https://mirror.example.org\"]\n[host.\"https://other.example.org\"]\n")
	c.write("trusted.example.org", "ca.crt", string(authority(t).PEM))
	refused := &runtime.Error{Op: "pull", Kind: runtime.ErrRegistryUnreachable}
	for _, x := range []struct {
		registry string
		own      bool
		err      error
		says     string
	}{
		{"mirrored.example.org", true, refused, "the node has the mirror mirror.example.org, other.example.org for mirrored.example.org, and this runtime reads files of its own"},
		{"trusted.example.org", true, refused, "the node has certificates for trusted.example.org,"},
		{"mirrored.example.org", true, &runtime.Error{Op: "pull", Kind: runtime.ErrNoSpace}, ""},
		{"mirrored.example.org", false, refused, ""},
		{"plain.example.org", true, refused, ""},
	} {
		r := newResolver(t, Options{Access: c.access(), OwnMirrors: x.own})
		digest := "sha256:" + strings.Repeat("a", 64)
		ref := x.registry + "/org/algo@" + digest
		_, err := r.Provide(t.Context(), Resolved{Reference: ref, Repository: x.registry + "/org/algo", Digest: digest, Pinned: ref}, Provision{Store: failing{x.err}, Named: func(string) error { return nil }})
		if !errors.Is(err, x.err) || !strings.Contains(err.Error(), x.says) || strings.Contains(err.Error(), "docs/registries.md") != (x.says != "") {
			t.Errorf("%s, files of its own %v: %v", x.registry, x.own, err)
		}
	}
}
