package sif_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apptainer/sif/v2/pkg/integrity"
	apptainer "github.com/apptainer/sif/v2/pkg/sif"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/v6node/v6node/sif"
	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/internal/siftest"
	"github.com/v6node/v6node/sif/signature"
)

// place puts a SIF where a store finds it.
func place(t testing.TB, dir, name, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func algorithm(t testing.TB) string {
	t.Helper()
	return siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Apptainer("export A=b\n", "exec true\n", nil))))
}

// openStore opens a store for SIFs in dir.
func openStore(t testing.TB, dir string, change func(*sif.Options)) *sif.Store {
	t.Helper()
	o := sif.Options{Directories: []string{dir}, CacheDir: filepath.Join(dir, "cache"), Architecture: "amd64"}
	if change != nil {
		change(&o)
	}
	s, err := sif.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func resolve(t testing.TB, s *sif.Store, ref string) sif.Resolved {
	t.Helper()
	r, err := s.Resolve(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ensure(t testing.TB, s *sif.Store, ref string) *sif.Pull {
	t.Helper()
	p, err := s.Ensure(t.Context(), resolve(t, s, ref), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// pulled pulls as a runtime does, and validates everything.
func pulled(t testing.TB, p *sif.Pull) v1.Image {
	t.Helper()
	img := remoteImage(t, p)
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) == 0 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	for n, l := range layers {
		body, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.New()
		_, err = io.Copy(hash, body)
		if err := errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		got := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}
		if want, err := l.Digest(); err != nil || got != want || got != cfg.RootFS.DiffIDs[n] {
			t.Fatalf("layer %d is %s instead of %s, %v", n, got, want, err)
		}
	}
	return img
}

func remoteImage(t testing.TB, p *sif.Pull) v1.Image {
	t.Helper()
	n, err := name.ParseReference(p.Reference)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(n, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: p.Username, Password: p.Password})))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func fileDigest(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return siftest.Digest(b)
}

func layersIn(t testing.TB, dir string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "cache", "images", "*", "layer-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// awaitNoLayers waits until no layer is left: the registry closes a layer a moment after
// the client has its last byte.
func awaitNoLayers(t testing.TB, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for tick := time.Tick(time.Millisecond); layersIn(t, dir) > 0; {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatal("a layer is left over")
		}
	}
}

func TestAReferenceIsResolvedConvertedAndPulled(t *testing.T) {
	dir, path := t.TempDir(), algorithm(t)
	place(t, dir, "Algorithm_1.0.sif", path)
	s := openStore(t, dir, nil)
	r := resolve(t, s, "sif:Algorithm_1.0")
	if want := fileDigest(t, path); r.Digest != want || r.Canonical != "sif:Algorithm_1.0@"+want || r.Size == 0 {
		t.Errorf("%+v", r)
	}
	p, err := s.Ensure(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(p.Reference, s.Address()+"/sif/algorithm-1-0@sha256:") || !p.Converted {
		t.Errorf("%+v", p)
	}
	img := pulled(t, p)
	if id, err := img.ConfigName(); err != nil || id.String() != p.ImageID {
		t.Errorf("the image's id is %s, announced was %s, %v", id, p.ImageID, err)
	}
	if layersIn(t, dir) != 1 {
		t.Errorf("%d layers on disk", layersIn(t, dir))
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	awaitNoLayers(t, dir)
	if _, err := remote.Image(must(name.ParseReference(p.Reference)), remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: p.Username, Password: p.Password}))); err == nil {
		t.Error("what was released is still served")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestTheDigestInAReferenceCounts(t *testing.T) {
	dir, path := t.TempDir(), algorithm(t)
	place(t, dir, "a.sif", path)
	s := openStore(t, dir, nil)
	if r := resolve(t, s, "sif:a@"+fileDigest(t, path)); r.Digest != fileDigest(t, path) {
		t.Errorf("%+v", r)
	}
	if _, err := s.Resolve(t.Context(), "sif:a@sha256:"+strings.Repeat("0", 64), nil); !errors.Is(err, sif.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestFailuresHaveKindsAndAreOneSentence(t *testing.T) {
	dir := t.TempDir()
	part := func(fs apptainer.FSType, arch string) string {
		return siftest.Write(t, siftest.Partition(make([]byte, 4096), fs, apptainer.PartPrimSys, arch))
	}
	place(t, dir, "encrypted.sif", part(apptainer.FsEncryptedSquashfs, "amd64"))
	place(t, dir, "foreign.sif", part(apptainer.FsSquash, "arm64"))
	place(t, dir, "damaged.sif", part(apptainer.FsSquash, "amd64"))
	if err := os.WriteFile(filepath.Join(dir, "text.sif"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out.sif")); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, nil)
	for ref, want := range map[string]error{
		"sif:../x": sif.ErrInvalid, "sif:none": sif.ErrNotFound, "sif:out": sif.ErrNotFound, "sif:text": sif.ErrUnusable,
		"sif:encrypted": sif.ErrUnusable, "sif:damaged": sif.ErrUnusable, "sif:foreign": sif.ErrPlatform,
		"oras://127.0.0.1:1/a/b:1": sif.ErrUnreachable,
	} {
		r, err := s.Resolve(t.Context(), ref, nil)
		if err == nil {
			_, err = s.Ensure(t.Context(), r, nil)
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), ref) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestTheSecondTimeNothingIsReadAndNothingConverted(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", algorithm(t))
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "a.sif"), old, old); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	count := func(sif.Progress) { calls.Add(1) }
	once := func(s *sif.Store) *sif.Pull {
		r, err := s.Resolve(t.Context(), "sif:a", count)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Ensure(t.Context(), r, count)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := openStore(t, dir, nil)
	p := once(first)
	if calls.Load() == 0 || !p.Converted {
		t.Fatal("the first time nothing was done")
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	// The change time of the file is now; its digest is remembered as soon as that is
	// long enough ago to tell one state from the next.
	awaitSettled(t, filepath.Join(dir, "a.sif"))
	if err := once(openStore(t, dir, nil)).Release(); err != nil {
		t.Fatal(err)
	}
	calls.Store(0)
	again := once(openStore(t, dir, nil)) // after a restart, even
	if calls.Load() != 0 || again.Converted || again.Digest != p.Digest {
		t.Errorf("%d reports of progress, %+v", calls.Load(), again)
	}
	// And yet it can be pulled.
	pulled(t, again)
	if err := again.Release(); err != nil {
		t.Error(err)
	}
	awaitNoLayers(t, dir)
}

// awaitSettled waits until a file's change time is old enough to be trusted.
func awaitSettled(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := image.StateOf(f)
	if err != nil {
		t.Fatal(err)
	}
	timer := time.NewTimer(time.Until(time.Unix(0, st.CTime).Add(2100 * time.Millisecond)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func TestPrepareMakesTheLayersBeforeThePull(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", algorithm(t))
	s := openStore(t, dir, nil)
	if err := ensure(t, s, "sif:a").Release(); err != nil {
		t.Fatal(err)
	}
	p := ensure(t, s, "sif:a")
	if layersIn(t, dir) != 0 {
		t.Fatal("there are layers already")
	}
	for range 2 {
		if err := p.Prepare(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if layersIn(t, dir) != 1 {
		t.Error("no layers")
	}
	pulled(t, p)
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if err := p.Prepare(t.Context(), nil); err == nil {
		t.Error("prepared after the release")
	}
	awaitNoLayers(t, dir)
}

func TestLayersAreKeptIfThatIsWanted(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", algorithm(t))
	s := openStore(t, dir, func(o *sif.Options) { o.KeepLayers = true })
	if err := ensure(t, s, "sif:a").Release(); err != nil {
		t.Fatal(err)
	}
	if layersIn(t, dir) != 1 {
		t.Error("the layer is gone")
	}
}

func TestManyRunsOfOneImageConvertItOnce(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", algorithm(t))
	stores := []*sif.Store{openStore(t, dir, nil), openStore(t, dir, nil)}
	var converted atomic.Int32
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			s := stores[n%2]
			r, err := s.Resolve(t.Context(), "sif:a", nil)
			if err != nil {
				t.Error(err)
				return
			}
			p, err := s.Ensure(t.Context(), r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if p.Converted {
				converted.Add(1)
			}
			if err := p.Release(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if converted.Load() != 1 {
		t.Errorf("converted %d times", converted.Load())
	}
}

func TestAFileThatWasReplacedAfterItWasResolvedIsRefused(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", algorithm(t))
	s := openStore(t, dir, nil)
	r := resolve(t, s, "sif:a")
	place(t, dir, "a.sif", siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"evil": "x"}))))
	if _, err := s.Ensure(t.Context(), r, nil); !errors.Is(err, sif.ErrChanged) {
		t.Errorf("got %v", err)
	}
	if r2 := resolve(t, s, "sif:a"); r2.Digest == r.Digest {
		t.Error("resolved to the old digest")
	}
}

func TestAFileThatChangesDuringTheConversionIsRefused(t *testing.T) {
	dir := t.TempDir()
	big := siftest.Tree{"a": strings.Repeat("some text\n", 1<<20)}
	path := siftest.Write(t, siftest.System(siftest.Squashfs(t, big, "-noD", "-noF")))
	place(t, dir, "a.sif", path)
	s := openStore(t, dir, nil)
	r := resolve(t, s, "sif:a")
	var once sync.Once
	_, err := s.Ensure(t.Context(), r, func(p sif.Progress) {
		if p.Stage == sif.Converting {
			once.Do(func() { siftest.Flip(t, filepath.Join(dir, "a.sif"), r.Size-100) })
		}
	})
	if !errors.Is(err, sif.ErrChanged) {
		t.Errorf("got %v", err)
	}
	if list, err := filepath.Glob(filepath.Join(dir, "cache", "images", "*")); err != nil || len(list) != 0 {
		t.Errorf("left over: %q, %v", list, err)
	}
}

func TestOnlySignedImagesAreConvertedIfThatIsRequired(t *testing.T) {
	e, public := siftest.PGP(t)
	keys, err := signature.Parse("test", public)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unsigned := algorithm(t)
	place(t, dir, "unsigned.sif", unsigned)
	signed := algorithm(t)
	siftest.Sign(t, signed, integrity.OptSignWithEntity(e))
	place(t, dir, "signed.sif", signed)
	place(t, dir, "tampered.sif", signed)
	siftest.Flip(t, filepath.Join(dir, "tampered.sif"), int64(len(must(os.ReadFile(unsigned)))-1))

	// What was converted when no signature was required is no way around it.
	free := openStore(t, dir, nil)
	for _, ref := range []string{"sif:unsigned", "sif:signed"} {
		if err := ensure(t, free, ref).Release(); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, dir, func(o *sif.Options) { o.Keys = keys })
	for ref, want := range map[string]error{"sif:unsigned": signature.ErrUnsigned, "sif:tampered": signature.ErrTampered} {
		if _, err := s.Ensure(t.Context(), resolve(t, s, ref), nil); !errors.Is(err, sif.ErrSignature) || !errors.Is(err, want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	p := ensure(t, s, "sif:signed")
	if p.Converted || len(p.Signers) != 1 || p.Signers[0] != keys.Names()[0] {
		t.Errorf("%+v", p)
	}
	pulled(t, p)
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	// Another set of keys asks again.
	_, other := siftest.PGP(t)
	others, err := signature.Parse("other", other)
	if err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, func(o *sif.Options) { o.Keys = others })
	if _, err := s.Ensure(t.Context(), resolve(t, s, "sif:signed"), nil); !errors.Is(err, signature.ErrUntrusted) {
		t.Errorf("another key: %v", err)
	}
}

// registryWith serves one SIF as g/i:1.0.
func registryWith(t *testing.T, path string) (host string, blobs *atomic.Int32) {
	t.Helper()
	b := must(os.ReadFile(path))
	manifest := must(json.Marshal(map[string]any{"schemaVersion": 2, "layers": []any{map[string]any{
		"mediaType": "application/vnd.sylabs.sif.layer.v1.sif", "digest": siftest.Digest(b), "size": len(b),
	}}}))
	blobs = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/":
		case "/v2/g/i/manifests/1.0", "/v2/g/i/manifests/" + siftest.Digest(manifest):
			w.Write(manifest)
		case "/v2/g/i/blobs/" + siftest.Digest(b):
			blobs.Add(1)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), blobs
}

func TestAnImageInARegistryIsDownloadedOnceAndConverted(t *testing.T) {
	path := algorithm(t)
	host, blobs := registryWith(t, path)
	dir := t.TempDir()
	s := openStore(t, dir, nil)
	r := resolve(t, s, "oras://"+host+"/g/i:1.0")
	if r.Digest != fileDigest(t, path) || !strings.HasPrefix(r.Canonical, "oras://"+host+"/g/i@sha256:") || strings.HasSuffix(r.Canonical, r.Digest) {
		t.Errorf("%+v", r)
	}
	if blobs.Load() != 0 {
		t.Error("downloaded before anyone allowed it")
	}
	for n := range 3 {
		p := ensure(t, s, "oras://"+host+"/g/i:1.0")
		if p.Converted != (n == 0) {
			t.Errorf("%d: %+v", n, p)
		}
		pulled(t, p)
		if err := p.Release(); err != nil {
			t.Error(err)
		}
	}
	if blobs.Load() != 1 {
		t.Errorf("downloaded %d times", blobs.Load())
	}
	// The same file in a directory is the same image.
	place(t, dir, "a.sif", path)
	if p := ensure(t, s, "sif:a"); p.Converted {
		t.Error("converted again")
	}
	if again := resolve(t, s, r.Canonical); again.Digest != r.Digest || again.Canonical != r.Canonical {
		t.Errorf("%+v", again)
	}
}

func TestReleaseWaitsForNoOneAndBreaksNoPull(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": strings.Repeat("x", 8<<20)}))))
	s := openStore(t, dir, nil)
	p := ensure(t, s, "sif:a")
	layers, err := remoteImage(t, p).Layers()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	hash := sha256.New()
	if _, err := io.CopyN(hash, body, 1000); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(hash, body); err != nil {
		t.Fatal(err)
	}
	if want := must(layers[0].Digest()); want.Hex != hex.EncodeToString(hash.Sum(nil)) {
		t.Error("another layer")
	}
}

func TestAFailedConversionOnDemandIsLoggedAndTheNextPullSucceeds(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", algorithm(t))
	s := openStore(t, dir, nil)
	if err := ensure(t, s, "sif:a").Release(); err != nil {
		t.Fatal(err)
	}
	p := ensure(t, s, "sif:a")
	defer p.Release()
	hidden := filepath.Join(dir, "hidden")
	if err := os.Rename(filepath.Join(dir, "a.sif"), hidden); err != nil {
		t.Fatal(err)
	}
	if err := p.Prepare(t.Context(), nil); !errors.Is(err, sif.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := os.Rename(hidden, filepath.Join(dir, "a.sif")); err != nil {
		t.Fatal(err)
	}
	pulled(t, p)
}

func TestAStoreThatIsClosedServesNothing(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "a.sif", algorithm(t))
	s := openStore(t, dir, nil)
	p := ensure(t, s, "sif:a")
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := must(http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Address()+"/v2/", nil))
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("it answers")
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	awaitNoLayers(t, dir)
}

// The depth of what sif may know ends here.
func TestNoOtherRoomMayEnter(t *testing.T) {
	forbidden := []string{"v6node/node", "v6node/runtime", "v6node/cni", "v6node/proxy"}
	err := filepath.WalkDir(".", func(p string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, f := range forbidden {
			if bytes.Contains(b, []byte("\"github.com/v6node/"+f)) {
				t.Errorf("%s imports %s", p, f)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
