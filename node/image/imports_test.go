package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/image/archive"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/image/imported"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/sif"
)

// puller is a runtime that has what it pulled, with the registry library as its hands.
type puller struct {
	t    *testing.T
	have map[string]bool // by ID
}

func (p *puller) Image(_ context.Context, ref string) (*runtime.Image, error) {
	if !p.have[ref] {
		return nil, runtime.ErrImageNotFound
	}
	return &runtime.Image{ID: ref}, nil
}

func (p *puller) PullImage(_ context.Context, ref string, a *runtime.Auth, _ runtime.PullOptions) (*runtime.Image, error) {
	at, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	if a.Server != "http://"+at.Context().RegistryStr() {
		p.t.Errorf("the login is for %s", a.Server)
	}
	img, err := remote.Image(at, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: a.Username, Password: a.Password})))
	if err != nil {
		return nil, err
	}
	if err := validate.Image(img); err != nil {
		return nil, err
	}
	id, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	p.have[id.String()] = true
	return &runtime.Image{ID: id.String()}, nil
}

// importFile imports the one image of an archive.
func importFile(t *testing.T, images *imported.Store, path, name string) *imported.Record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	adding, err := images.Add(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(t.Context(), f, archive.Options{TempDir: adding.TempDir(), MaxBytes: 1 << 20, OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := ImportName(name)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := adding.Image(t.Context(), a, a.Images[0], []imageref.Reference{ref}, nil)
	if err = errors.Join(err, a.Close(), adding.End()); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestAnImportedImageNeedsNoRegistry(t *testing.T) {
	dir := t.TempDir()
	images := imported.Open(filepath.Join(dir, "imported"))
	path := filepath.Join(dir, "archive.tar")
	if err := os.WriteFile(path, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine, err := imagekit.Build(imagekit.Spec{Binary: path, Architecture: "amd64", Gzip: true})
	if err != nil {
		t.Fatal(err)
	}
	index, err := imagekit.Index(testImage(t, "s390x", ""), mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := imagekit.WriteFile(path, false, func(w io.Writer) error {
		return imagekit.SaveOCI(w, imagekit.Named{What: index})
	}); err != nil {
		t.Fatal(err)
	}
	rec := importFile(t, images, path, nowhere+"/org/algo:v1")
	store, err := sif.Open(t.Context(), sif.Options{CacheDir: filepath.Join(dir, "sif")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	origin := newFixture(t)
	other := origin.push(t, "org/algo:v1", testImage(t, "amd64", ""))
	source := &Imports{Images: images, Serve: store, Others: newResolver(t, Options{})}
	rt := &puller{t, map[string]bool{}}
	for asked, want := range map[string]string{
		nowhere + "/org/algo:v1": rec.Digest, nowhere + "/org/algo@" + rec.Digest: rec.Digest, nowhere + "/org/algo@" + rec.Manifest.Digest: rec.Manifest.Digest,
	} {
		r, err := source.Resolve(t.Context(), asked)
		if err != nil || r.Digest != want || r.Pinned != nowhere+"/org/algo@"+want || !r.Local {
			t.Fatalf("%s: %+v, %v", asked, r, err)
		}
		noted := ""
		p, err := source.Provide(t.Context(), r, Provision{Store: rt, Named: func(n string) error { noted = n; return nil }})
		if err != nil || p.Name != rec.Config.Digest || noted != p.Name || p.Image == nil {
			t.Errorf("%s: %+v, %v", asked, p, err)
		}
	}
	if got, err := source.Resolve(t.Context(), origin.host+"/org/algo:v1"); err != nil || got.Digest != other || got.Local {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := source.Resolve(t.Context(), nowhere+"/org/other:v1"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}

	// What goes between the look-up and the pull is an error that says so.
	r, err := source.Resolve(t.Context(), nowhere+"/org/algo:v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.Remove(t.Context(), rec.Digest); err != nil {
		t.Fatal(err)
	}
	empty := &puller{t, map[string]bool{}}
	if _, err := source.Provide(t.Context(), r, Provision{Store: empty, Named: func(string) error { return nil }}); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	if _, err := source.Resolve(t.Context(), nowhere+"/org/algo:v1"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("after the removal: %v", err)
	}
}

// As cosign save writes it, except that a tar is made of it.
func TestASignatureMayComeWithItsImage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.pub")
	key := signingKey(t, file)
	keys, err := LoadSigningKeys([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	images := imported.Open(filepath.Join(t.TempDir(), "imported"))
	source := &Imports{Images: images, Others: newResolver(t, Options{Timeout: time.Second})}
	img := testImage(t, "amd64", "signed")
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	old := func(about string) (v1.Image, error) { return imagekit.Sign(key, about) }
	refers := func(about string) (v1.Image, error) {
		bundle, err := imagekit.Bundle(key, about, imagekit.SignPredicate)
		if err != nil {
			return nil, err
		}
		return imagekit.Referrer(about, imagekit.SignPredicate, bundle)
	}
	other := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct {
		make     func(string) (v1.Image, error)
		about    string
		unlisted bool // in the index, as cosign save leaves what refers to an image
		want     error
	}{
		{old, digest.String(), false, nil}, {old, other, false, ErrUnreachable},
		{refers, digest.String(), false, nil}, {refers, digest.String(), true, nil}, {refers, other, true, ErrUnreachable},
	} {
		signature, err := c.make(c.about)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "archive.tar")
		if err := imagekit.WriteFile(path, false, func(w io.Writer) error {
			return imagekit.SaveOCI(w, imagekit.Named{What: img}, imagekit.Named{What: signature, Unlisted: c.unlisted})
		}); err != nil {
			t.Fatal(err)
		}
		importFile(t, images, path, nowhere+"/org/algo:v1")
		r, err := source.Resolve(t.Context(), nowhere+"/org/algo:v1")
		if err != nil {
			t.Fatal(err)
		}
		if by, err := source.Signed(t.Context(), r, keys); !errors.Is(err, c.want) || err == nil && by != "key.pub" {
			t.Errorf("a signature of %s: %q, %v", c.about, by, err)
		}
		if _, err := images.Remove(t.Context(), r.Digest); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnImportNeedsTheNameOfAContainerImage(t *testing.T) {
	for text, ok := range map[string]bool{"python": true, "r.example.org/a:1": true, "sif:a": false, "oras://r.example.org/a:1": false, "A B": false} {
		if _, err := ImportName(text); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
