package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/v6node/v6node/internal/imagekit"
)

// small is an image with one layer, which text makes another one.
func small(t testing.TB, arch, text string, gzip bool) v1.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(file, []byte(strings.Repeat(text, 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := imagekit.Build(imagekit.Spec{Binary: file, Architecture: arch, Gzip: gzip})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func save(t testing.TB, compress bool, write func(io.Writer) error) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := imagekit.WriteFile(path, compress, write); err != nil {
		t.Fatal(err)
	}
	return path
}

func docker(images ...imagekit.Named) func(io.Writer) error {
	return func(w io.Writer) error { return imagekit.SaveDocker(w, images...) }
}

func oci(images ...imagekit.Named) func(io.Writer) error {
	return func(w io.Writer) error { return imagekit.SaveOCI(w, images...) }
}

func named(what any, names ...string) imagekit.Named { return imagekit.Named{Names: names, What: what} }

func options(t testing.TB) Options {
	return Options{TempDir: t.TempDir(), MaxBytes: 10 << 20, OS: "linux", Architecture: "amd64"}
}

// load opens an archive, and reads all layers.
func load(t testing.TB, path string, o Options) (*Archive, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	a, err := Open(t.Context(), f, o)
	if err != nil {
		left, rerr := os.ReadDir(o.TempDir)
		if rerr != nil || len(left) > 0 {
			t.Errorf("%v are left, %v", left, rerr)
		}
		return nil, err
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, i := range a.Images {
		for n := range i.Layers {
			var content bytes.Buffer
			if err := a.CopyLayer(t.Context(), &i.Layers[n], &content, nil); err != nil {
				return nil, err
			}
			if got := fmt.Sprintf("sha256:%x", sha256.Sum256(content.Bytes())); got != i.Layers[n].Digest || int64(content.Len()) != i.Layers[n].Size {
				t.Errorf("a layer has the digest %s and %d bytes: %+v", got, content.Len(), i.Layers[n])
			}
		}
		if err := i.Seal(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func mustLoad(t testing.TB, path string) *Archive {
	t.Helper()
	a, err := load(t, path, options(t))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnOCIArchiveKeepsItsDigests(t *testing.T) {
	for _, compress := range []bool{false, true} {
		img := small(t, "amd64", "x", true)
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		a := mustLoad(t, save(t, compress, oci(named(img, "r.example.org/a:1", "r.example.org/a:2"))))
		if a.Kind != OCI || len(a.Images) != 1 || a.Images[0].Digest != d.String() || a.Images[0].Manifest != d.String() {
			t.Fatalf("%+v", a)
		}
		if got := a.Images[0]; len(got.Documents) != 2 || !slices.Equal(got.Names, []string{"r.example.org/a:1", "r.example.org/a:2"}) || !strings.HasSuffix(got.Layers[0].MediaType, "gzip") {
			t.Errorf("%+v", got)
		}
	}
}

func TestOfAnIndexTheImageForThisMachineCounts(t *testing.T) {
	mine, other := small(t, "amd64", "mine", false), small(t, "s390x", "other", false)
	index, err := imagekit.Index(other, mine)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	part, err := mine.Digest()
	if err != nil {
		t.Fatal(err)
	}
	a := mustLoad(t, save(t, false, oci(named(index, "r.example.org/a:1"))))
	if i := a.Images[0]; i.Digest != whole.String() || i.Manifest != part.String() || len(i.Documents) != 3 || len(i.Layers) != 1 {
		t.Errorf("%+v", i)
	}
	foreign, err := imagekit.Index(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"index": save(t, false, oci(named(foreign))), "image": save(t, false, oci(named(other))), "docker": save(t, false, docker(named(other))),
	} {
		if _, err := load(t, path, options(t)); !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "s390x") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADockerArchiveWithSeveralImagesIsRead(t *testing.T) {
	one, two := small(t, "amd64", "one", true), small(t, "amd64", "two", false)
	path := save(t, true, docker(named(one, "r.example.org/one:1", "r.example.org/one:2"), named(two)))
	a, again := mustLoad(t, path), mustLoad(t, path)
	if a.Kind != Docker || len(a.Images) != 2 || !slices.Equal(a.Names(), []string{"r.example.org/one:1", "r.example.org/one:2"}) {
		t.Fatalf("%+v", a)
	}
	id, err := one.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if i := a.Images[0]; i.Config != id.String() || i.Digest == "" || i.Digest != again.Images[0].Digest || i.Digest == a.Images[1].Digest {
		t.Errorf("%+v", i)
	}
}

// Once docker save wrote a layer of several images as a link.
func TestALayerMayBeALinkInsideTheArchive(t *testing.T) {
	plain := save(t, false, docker(named(small(t, "amd64", "x", false), "r.example.org/a:1")))
	relink := func(linkname string) string {
		return rewrite(t, plain, func(h *tar.Header, content []byte, tw *tar.Writer) error {
			if !strings.HasSuffix(h.Name, "/layer.tar") {
				return put(tw, h, content)
			}
			link := *h
			link.Typeflag, link.Linkname, link.Size = tar.TypeSymlink, linkname, 0
			if err := put(tw, &link, nil); err != nil {
				return err
			}
			h.Name = "real/layer.tar"
			return put(tw, h, content)
		})
	}
	mustLoad(t, relink("../real/layer.tar"))
	for _, leads := range []string{"layer.tar", "/etc/passwd", "../../../../etc/passwd", "../none"} {
		if _, err := load(t, relink(leads), options(t)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", leads, err)
		}
	}
}

func put(tw *tar.Writer, h *tar.Header, content []byte) error {
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(content)
	return err
}

// rewrite writes an archive anew, entry by entry.
func rewrite(t testing.TB, path string, change func(h *tar.Header, content []byte, tw *tar.Writer) error) string {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	return save(t, false, func(w io.Writer) error {
		tr, tw := tar.NewReader(in), tar.NewWriter(w)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return tw.Close()
			}
			if err != nil {
				return err
			}
			content, err := io.ReadAll(tr)
			if err != nil {
				return err
			}
			if err := change(h, content, tw); err != nil {
				return err
			}
		}
	})
}

// edit replaces a text in the entries whose names end so.
func edit(t testing.TB, path, suffix, old, new string) string {
	t.Helper()
	done := false
	out := rewrite(t, path, func(h *tar.Header, content []byte, tw *tar.Writer) error {
		if strings.HasSuffix(h.Name, suffix) && bytes.Contains(content, []byte(old)) {
			done = true
			content = bytes.Replace(content, []byte(old), []byte(new), 1)
			h.Size = int64(len(content))
		}
		return put(tw, h, content)
	})
	if !done {
		t.Fatalf("%q is not in %s", old, suffix)
	}
	return out
}

func TestWhatIsNotAsItSaysIsRefused(t *testing.T) {
	img := small(t, "amd64", "x", false)
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	good, old := save(t, false, oci(named(img))), save(t, false, docker(named(img)))
	drop := func(path, suffix string) string {
		return rewrite(t, path, func(h *tar.Header, content []byte, tw *tar.Writer) error {
			if strings.HasSuffix(h.Name, suffix) {
				return nil
			}
			return put(tw, h, content)
		})
	}
	extra := func(h tar.Header) string {
		done := false
		return rewrite(t, good, func(first *tar.Header, content []byte, tw *tar.Writer) error {
			if !done {
				done = true
				if err := put(tw, &h, nil); err != nil {
					return err
				}
			}
			return put(tw, first, content)
		})
	}
	cut := func() string {
		whole, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		return save(t, false, func(w io.Writer) error { _, err := w.Write(whole[:1500]); return err })
	}
	for name, path := range map[string]string{
		"no archive":             save(t, false, func(w io.Writer) error { _, err := io.WriteString(w, strings.Repeat("text ", 500)); return err }),
		"nothing":                save(t, false, func(io.Writer) error { return nil }),
		"another tar":            drop(good, "oci-layout"),
		"cut off":                cut(),
		"a changed manifest":     edit(t, good, d.Hex, "schemaVersion", "SchemaVersion"),
		"a changed layer":        edit(t, good, "", "xxxx", "yyyy"),
		"a changed old layer":    edit(t, old, "layer.tar", "xxxx", "yyyy"),
		"a changed layout":       edit(t, good, "oci-layout", "1.0.0", "9.0.0"),
		"no manifest":            drop(good, d.Hex),
		"no layer":               drop(old, "layer.tar"),
		"a size that is wrong":   edit(t, good, "index.json", `"size":`, `"size":1`),
		"a digest as a path":     edit(t, good, "index.json", "sha256:"+d.Hex, "../../../../etc/passwd"),
		"a config as a path":     edit(t, old, "manifest.json", `"Config":"`, `"Config":"../../../etc/`),
		"no JSON":                edit(t, good, "index.json", "{", "["),
		"an entry that gets out": extra(tar.Header{Name: "../../etc/passwd", Typeflag: tar.TypeReg}),
		"an absolute entry":      extra(tar.Header{Name: "/etc/passwd", Typeflag: tar.TypeReg}),
		"an entry twice":         extra(tar.Header{Name: "./index.json", Typeflag: tar.TypeReg}),
		"a device":               extra(tar.Header{Name: "null", Typeflag: tar.TypeChar}),
	} {
		if a, err := load(t, path, options(t)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func TestWhatUnpacksToTooMuchIsRefused(t *testing.T) {
	zeros := func(w io.Writer) error { _, err := w.Write(make([]byte, 20<<20)); return err }
	path := save(t, true, zeros)
	if _, err := load(t, path, options(t)); !errors.Is(err, ErrLimit) {
		t.Errorf("a compressed archive: %v", err)
	}
	var plain bytes.Buffer
	if err := zeros(&plain); err != nil {
		t.Fatal(err)
	}
	packed, err := imagekit.Gzip(plain.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	diff, _, err := v1.SHA256(bytes.NewReader(plain.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for kind, content := range map[types.MediaType][]byte{types.OCILayer: packed, types.OCILayerZStd: enc.EncodeAll(plain.Bytes(), nil)} {
		bomb, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), static.NewLayer(content, kind))
		if err != nil {
			t.Fatal(err)
		}
		config, err := bomb.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		config.OS, config.Architecture, config.RootFS.DiffIDs = "linux", "amd64", []v1.Hash{diff}
		if bomb, err = mutate.ConfigFile(bomb, config); err != nil {
			t.Fatal(err)
		}
		path := save(t, false, oci(named(bomb)))
		if _, err := load(t, path, options(t)); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", kind, err)
		}
		o := options(t)
		o.MaxBytes = 40 << 20
		if _, err := load(t, path, o); err != nil {
			t.Errorf("%s, when it is allowed: %v", kind, err)
		}
	}
	many := save(t, false, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for i := range maxEntries + 1 {
			if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg}); err != nil {
				return err
			}
		}
		return tw.Close()
	})
	o := options(t)
	o.MaxBytes = 1 << 30
	if _, err := load(t, many, o); !errors.Is(err, ErrLimit) {
		t.Errorf("many entries: %v", err)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	f, err := os.Open(save(t, true, docker(named(small(t, "amd64", "x", false)))))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := options(t)
	if _, err := Open(ctx, f, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(o.TempDir); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// FuzzArchive: any file is an archive, or is refused with a kind; what is taken is as its digests say.
// refers is an artifact that refers to an image and is in no index.
func refers(t testing.TB, img v1.Image, bundle []byte) imagekit.Named {
	t.Helper()
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	r, err := imagekit.Referrer(digest.String(), imagekit.SignPredicate, bundle)
	if err != nil {
		t.Fatal(err)
	}
	return imagekit.Named{What: r, Unlisted: true}
}

func TestBundlesThatReferToAnImageAreTakenAlong(t *testing.T) {
	img := small(t, "amd64", "x", true)
	good := []byte(`{"bundle":1}`)
	for _, c := range []struct {
		name string
		path string
		want int
	}{
		{"a bundle", save(t, false, oci(named(img), refers(t, img, good))), 1},
		{"a bundle and one that is too long", save(t, true, oci(named(img), refers(t, img, make([]byte, MaxBundle+1)), refers(t, img, good))), 1},
		{"a bundle with other content than its digest", edit(t, save(t, false, oci(named(img), refers(t, img, good))), "", `{"bundle":1}`, `{"bundle":2}`), 0},
	} {
		a := mustLoad(t, c.path)
		if len(a.Images) != 1 || len(a.Signatures) != c.want || c.want > 0 && !bytes.Equal(a.Signatures[0].Bundle, good) {
			t.Errorf("%s: %d images, %+v", c.name, len(a.Images), a.Signatures)
		}
	}
	many := []imagekit.Named{named(img)}
	for i := range maxSignatures + 1 {
		many = append(many, refers(t, img, fmt.Append(nil, i)))
	}
	if a := mustLoad(t, save(t, false, oci(many...))); len(a.Signatures) != maxSignatures {
		t.Errorf("%d signatures were taken", len(a.Signatures))
	}
}

func FuzzArchive(f *testing.F) {
	img := small(f, "amd64", "x", true)
	index, err := imagekit.Index(img, small(f, "s390x", "y", false))
	if err != nil {
		f.Fatal(err)
	}
	for _, write := range []func(io.Writer) error{docker(named(img, "a:1")), oci(named(img, "r.example.org/a:1")), oci(named(index)), oci(named(img), refers(f, img, []byte("{}")))} {
		for _, compress := range []bool{false, true} {
			content, err := os.ReadFile(save(f, compress, write))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		o := options(t)
		o.TempDir, o.MaxBytes = dir, 1<<20
		_, err := load(t, path, o)
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrPlatform) {
			t.Errorf("a failure of no kind: %v", err)
		}
	})
}

// FuzzDocuments puts any texts in the places of an archive's documents.
func FuzzDocuments(f *testing.F) {
	digest := "sha256:" + strings.Repeat("0", 64)
	f.Add(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"`+digest+`","size":2}]}`, `[{"Config":"config","Layers":["layer"]}]`, `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["`+digest+`"]}}`, true)
	f.Add(`{"manifests":[]}`, `[{"Config":"config","RepoTags":["a:1"]}]`, `{}`, false)
	f.Fuzz(func(t *testing.T, index, manifest, config string, layout bool) {
		path := save(t, false, func(w io.Writer) error {
			tw := tar.NewWriter(w)
			list := [][2]string{{"manifest.json", manifest}, {"config", config}, {"layer", "layer"}}
			if layout {
				list = append(list, [2]string{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}, [2]string{"index.json", index})
			}
			for _, text := range []string{index, manifest, config} {
				list = append(list, [2]string{fmt.Sprintf("blobs/sha256/%x", sha256.Sum256([]byte(text))), text})
			}
			have := map[string]bool{}
			for _, e := range list {
				if have[e[0]] {
					continue
				}
				have[e[0]] = true
				if err := put(tw, &tar.Header{Name: e[0], Typeflag: tar.TypeReg, Size: int64(len(e[1]))}, []byte(e[1])); err != nil {
					return err
				}
			}
			return tw.Close()
		})
		_, err := load(t, path, options(t))
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrPlatform) {
			t.Errorf("a failure of no kind: %v", err)
		}
	})
}
