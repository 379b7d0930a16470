package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"
)

// image is an image with these layers, whose configuration has some text.
func image(text string, layers ...string) Image {
	return func(_ context.Context, open func(int) (io.Writer, error)) (*Result, error) {
		cfg := map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Labels": map[string]string{"text": text}}}
		var diffIDs []string
		var descriptors []any
		res := &Result{}
		for n, l := range layers {
			w, err := open(n)
			if err != nil {
				return nil, err
			}
			if _, err := io.WriteString(w, l); err != nil {
				return nil, err
			}
			d := digestOf([]byte(l))
			res.Layers = append(res.Layers, d)
			diffIDs = append(diffIDs, d)
			descriptors = append(descriptors, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": d, "size": len(l)})
		}
		cfg["rootfs"] = map[string]any{"type": "layers", "diff_ids": diffIDs}
		res.Config, _ = json.Marshal(cfg)
		res.Manifest, _ = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "layers": descriptors,
			"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digestOf(res.Config), "size": len(res.Config)}})
		return res, nil
	}
}

func write(t *testing.T, text string, img Image) *Result {
	t.Helper()
	d, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Write(t.Context(), d, img)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// tags reads a layout with another library and gives its images' tags, each image
// verified.
func tags(t *testing.T, dir string) []string {
	t.Helper()
	p, err := ggcr.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range m.Manifests {
		out = append(out, d.Annotations[refName])
		img, err := idx.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for n, l := range layers {
			r, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil || digestOf(b) != cfg.RootFS.DiffIDs[n].String() {
				t.Errorf("layer %d: %d bytes, %v", n, len(b), err)
			}
			r.Close()
		}
	}
	slices.Sort(out)
	return out
}

func TestADirectoryHoldsManyImages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "layout")
	write(t, "oci:"+dir+":1", image("first", "a", "b"))
	write(t, "oci:"+dir+":2", image("second", "a", "c"))
	write(t, "oci:"+dir, image("third", "d"))
	write(t, "oci:"+dir, image("third", "d"))
	write(t, "oci:"+dir+":1", image("fourth", "e"))
	if got := tags(t, dir); !slices.Equal(got, []string{"", "1", "2"}) {
		t.Errorf("%q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "blobs", "sha256", ".tmp*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestAnArchiveIsALayoutInATar(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "image.tar")
	write(t, "oci-archive:"+file+":1.0", image("text", "first", strings.Repeat("x", 512), "", strings.Repeat("y", 100_000)))
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := filepath.Join(tmp, "unpacked")
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, r); err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, h.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if got := tags(t, dir); !slices.Equal(got, []string{"1.0"}) {
		t.Errorf("%q", got)
	}
}

func TestTheSameImageMakesTheSameArchive(t *testing.T) {
	tmp := t.TempDir()
	var both [2][]byte
	for n := range both {
		file := filepath.Join(tmp, string(rune('a'+n)))
		write(t, "oci-archive:"+file, image("text", "layer"))
		both[n], _ = os.ReadFile(file)
	}
	if len(both[0]) == 0 || !bytes.Equal(both[0], both[1]) {
		t.Error("they differ")
	}
}

func TestALayerOfMoreThan8GiBHasAHeaderOfOneBlock(t *testing.T) {
	b, err := header(blobName(digestOf(nil)), 100<<30)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(bytes.NewReader(append(b, 0))).Next()
	if err != nil || h.Size != 100<<30 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestWhatIsThereIsNotOverwritten(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "index.json")
	if err := os.WriteFile(file, []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Destination{{Archive: true, Path: file}, {Path: tmp}} {
		if _, err := Write(t.Context(), d, image("text", "layer")); !errors.Is(err, ErrExists) {
			t.Errorf("%+v: %v", d, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "[]" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAFailureLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	fails := func(ctx context.Context, open func(int) (io.Writer, error)) (*Result, error) {
		if _, err := image("text", "layer")(ctx, open); err != nil {
			return nil, err
		}
		return nil, broken
	}
	tmp := t.TempDir()
	for _, d := range []Destination{{Archive: true, Path: filepath.Join(tmp, "x.tar")}, {Path: tmp}} {
		if _, err := Write(t.Context(), d, fails); !errors.Is(err, broken) {
			t.Errorf("%+v: %v", d, err)
		}
	}
	var files []string
	filepath.WalkDir(tmp, func(p string, e os.DirEntry, _ error) error {
		if !e.IsDir() {
			files = append(files, p)
		}
		return nil
	})
	if len(files) > 0 {
		t.Errorf("left over: %q", files)
	}
}

func TestDestinationsAreRead(t *testing.T) {
	for text, want := range map[string]Destination{
		"oci:dir":               {Path: "dir"},
		"oci:/a/b:1.0":          {Path: "/a/b", Tag: "1.0"},
		"oci-archive:x.tar":     {Archive: true, Path: "x.tar"},
		"oci-archive:/a:b/c":    {Archive: true, Path: "/a:b/c"},
		"oci-archive:/a:b/c:v1": {Archive: true, Path: "/a:b/c", Tag: "v1"},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "oci", "oci:", "docker:x", "x.tar", "oci:a:", "oci::1", "oci:a:b c", "oci:a:-x"} {
		if got, err := Parse(text); !errors.Is(err, ErrDestination) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}
