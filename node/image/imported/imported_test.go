package imported

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/image/archive"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/sif/reference"
)

func testImage(t *testing.T, text string) v1.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := imagekit.Build(imagekit.Spec{Binary: file, Architecture: "amd64", Files: imagekit.Skeleton()})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func refs(t *testing.T, names ...string) []imageref.Reference {
	t.Helper()
	var out []imageref.Reference
	for _, n := range names {
		r, err := imageref.Parse(n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// add imports what an index or image is packed into.
func add(t *testing.T, s *Store, what any, names ...string) *Record {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := imagekit.WriteFile(path, true, func(w io.Writer) error { return imagekit.SaveOCI(w, imagekit.Named{What: what}) }); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	adding, err := s.Add(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(t.Context(), f, archive.Options{TempDir: adding.TempDir(), MaxBytes: 10 << 20, OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := adding.Image(t.Context(), a, a.Images[0], refs(t, names...), nil)
	if err = errors.Join(err, a.Close(), adding.End()); err != nil {
		t.Fatal(err)
	}
	return r
}

func found(t *testing.T, s *Store, name string) string {
	t.Helper()
	r, err := s.Find(refs(t, name)[0])
	if errors.Is(err, ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.Digest
}

// files are all regular files in the store beside its locks.
func files(t *testing.T, s *Store) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		if name := filepath.Base(path); name != "lock" && name != "names" {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAnImportedImageIsFoundByItsNamesAndDigests(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "imported"))
	if list, err := s.List(); err != nil || list != nil {
		t.Fatalf("%v, %v", list, err)
	}
	img := testImage(t, "one")
	index, err := imagekit.Index(img)
	if err != nil {
		t.Fatal(err)
	}
	r := add(t, s, index, "r.example.org/a:1", "python")
	if r.Digest == r.Manifest.Digest || len(r.Documents) != 3 || len(r.Layers) != 1 {
		t.Fatalf("%+v", r)
	}
	for name, want := range map[string]string{
		"r.example.org/a:1": r.Digest, "R.example.org/a:1": r.Digest, "docker.io/library/python:latest": r.Digest,
		"r.example.org/a@" + r.Digest: r.Digest, "r.example.org/a@" + r.Manifest.Digest: r.Digest, "r.example.org/a:9@" + r.Digest: r.Digest,
		"r.example.org/a:2": "", "r.example.org/a": "", "r.example.org/b@" + r.Digest: "", "r.example.org/a@" + r.Config.Digest: "",
	} {
		if got := found(t, s, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, b := range append(slices.Clone(r.Layers), r.Manifest, r.Config) {
		f, err := s.OpenBlob(b.Digest)
		if err != nil {
			t.Fatal(err)
		}
		d, n, err := v1.SHA256(f)
		if err = errors.Join(err, f.Close()); err != nil || d.String() != b.Digest || n != b.Size {
			t.Errorf("%+v is %s with %d bytes, %v", b, d, n, err)
		}
	}
	if _, err := s.OpenBlob("sha256:../../record"); err == nil {
		t.Error("a path is a digest")
	}
}

func TestATagMovesAndTheDigestStays(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "imported"))
	one := add(t, s, testImage(t, "one"), "r.example.org/a:1")
	two := add(t, s, testImage(t, "two"), "r.example.org/a:1", "r.example.org/b:1")
	again := add(t, s, testImage(t, "two"), "r.example.org/c:1")
	if again.Digest != two.Digest || len(again.Names) != 3 {
		t.Errorf("%+v", again)
	}
	for name, want := range map[string]string{
		"r.example.org/a:1": two.Digest, "r.example.org/a@" + one.Digest: one.Digest, "r.example.org/b:1": two.Digest, "r.example.org/b@" + one.Digest: "",
	} {
		if got := found(t, s, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	before := len(files(t, s))
	gone, err := s.Remove(t.Context(), "r.example.org/b:1")
	if err != nil || !slices.Equal(gone, []string{"r.example.org/b:1"}) || len(files(t, s)) != before {
		t.Errorf("%v, %v", gone, err)
	}
	if _, err := s.Remove(t.Context(), one.Digest[7:15]); err != nil {
		t.Error(err)
	}
	// What both have stays.
	if got := found(t, s, "r.example.org/c:1"); got != two.Digest || found(t, s, "r.example.org/a@"+one.Digest) != "" {
		t.Errorf("%q", got)
	}
	if got := len(files(t, s)); got != 4 {
		t.Errorf("%d files are left: %v", got, files(t, s))
	}
	if _, err := s.Remove(t.Context(), two.Digest); err != nil || len(files(t, s)) != 0 {
		t.Errorf("%v, %v", err, files(t, s))
	}
	if _, err := s.Remove(t.Context(), "r.example.org/a:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestARemovalWaitsForWhoeverUsesAnImage(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "imported"))
	r := add(t, s, testImage(t, "one"), "r.example.org/a:1")
	release, err := s.Use(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Remove(ctx, r.Digest)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || found(t, s, "r.example.org/a:1") == "" {
		t.Errorf("%v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), r.Digest); err != nil {
		t.Error(err)
	}
}

func TestWhatACrashLeavesGoesWithTheNextImport(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "imported"))
	r := add(t, s, testImage(t, "one"), "r.example.org/a:1")
	want := files(t, s)
	for _, left := range []string{"tmp/new-1", "blobs/" + strings.Repeat("a", 64)} {
		if err := os.WriteFile(filepath.Join(s.dir, left), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add(t, s, testImage(t, "one"), "r.example.org/a:1")
	if got := files(t, s); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := os.WriteFile(want[len(want)-1], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(refs(t, "r.example.org/a:1")[0]); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), r.Digest[7:]) {
		t.Errorf("a damaged record: %v", err)
	}
}

func TestASIFFileIsCopiedListedAndRemoved(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "imported"))
	content := []byte("a SIF file, as far as the store knows")
	d, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := reference.Parse("sif:tools/algo")
	if err != nil {
		t.Fatal(err)
	}
	adding, err := s.Add(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put := func(digest string) error {
		return adding.SIF(t.Context(), bytes.NewReader(content), int64(len(content)), digest, ref, nil)
	}
	if err := put("sha256:" + strings.Repeat("0", 64)); err == nil || len(files(t, s)) != 0 {
		t.Errorf("a file that changed: %v, %v", err, files(t, s))
	}
	if err := errors.Join(put(d.String()), put(d.String()), adding.End()); err != nil {
		t.Fatal(err)
	}
	f, err := reference.Directories{SIFDirectory(s.dir)}.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if list, err := s.ListSIF(); err != nil || len(list) != 1 || list[0].Name != "sif:tools/algo" || list[0].Size != int64(len(content)) {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := s.Remove(t.Context(), "sif:tools/other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if gone, err := s.Remove(t.Context(), "sif:tools/algo.sif"); err != nil || !slices.Equal(gone, []string{"sif:tools/algo"}) || len(files(t, s)) != 0 {
		t.Errorf("%v, %v", gone, err)
	}
}
