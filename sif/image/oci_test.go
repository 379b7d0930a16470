package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"

	"github.com/v6node/v6node/sif/internal/siftest"
)

const ociImageConfig = `{"created":"2023-01-02T03:04:05.678Z","architecture":"amd64","os":"linux","variant":"v2","config":{"Entrypoint":["/run"],"Env":["A=b"],"Labels":{"l":"v"}},"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000","sha256:1111111111111111111111111111111111111111111111111111111111111111"]}}`

func squashfsLayer(tb testing.TB, t siftest.Tree, args ...string) siftest.Blob {
	return siftest.Blob{MediaType: siftest.SquashfsLayer, Data: siftest.Squashfs(tb, t, args...)}
}

func names(tb testing.TB, layer []byte) []string {
	tb.Helper()
	var out []string
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

func TestAnOCISIFKeepsItsLayersAndItsConfiguration(t *testing.T) {
	path := siftest.OCISIF(t, ociImageConfig,
		squashfsLayer(t, siftest.Tree{"bin/sh": "sh", "old": "x"}),
		squashfsLayer(t, siftest.Tree{"new": "y"}, "-p", "old c 000 0 0 0 0"))
	img := open(t, path)
	if img.Kind != OCI || img.Layers() != 2 || len(img.Used()) != 5 {
		t.Fatalf("%s, %d layers, uses %v", img.Kind, img.Layers(), img.Used())
	}
	res, layers := convert(t, img)
	if got, want := names(t, layers[0]), []string{"./", "bin/", "bin/sh", "old"}; !slices.Equal(got, want) {
		t.Errorf("first layer %q", got)
	}
	if got, want := names(t, layers[1]), []string{"./", "new", ".wh.old"}; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("second layer %q", got)
	}
	var cfg imageConfig
	if err := json.Unmarshal(res.Config, &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Created != "2023-01-02T03:04:05Z" || cfg.Variant != "v2" || !slices.Equal(cfg.Config.Entrypoint, []string{"/run"}) ||
		!slices.Equal(cfg.RootFS.DiffIDs, []string{siftest.Digest(layers[0]), siftest.Digest(layers[1])}) {
		t.Errorf("%s", res.Config)
	}
}

func TestATarInAnOCISIFIsPassedOnAsItIs(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "a", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	diff := siftest.Digest(b.Bytes())
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, diff)
	res, layers := convert(t, open(t, siftest.OCISIF(t, config, siftest.Blob{MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", Data: b.Bytes()})))
	if !bytes.Equal(layers[0], b.Bytes()) || res.Layers[0].MediaType != "application/vnd.oci.image.layer.v1.tar+gzip" || res.Layers[0].DiffID != diff {
		t.Errorf("%+v", res.Layers)
	}
}

func TestAnOCISIFThatCannotRunIsRefusedByName(t *testing.T) {
	good := squashfsLayer(t, siftest.Tree{"a": ""})
	for name, c := range map[string]struct {
		config string
		layers []siftest.Blob
		want   error
	}{
		"other architecture": {strings.Replace(ociImageConfig, "amd64", "riscv64", 1), []siftest.Blob{good}, ErrArchitecture},
		"other system":       {strings.Replace(ociImageConfig, "linux", "windows", 1), []siftest.Blob{good}, ErrArchitecture},
		"no layers":          {ociImageConfig, nil, ErrNoSystem},
		"ext3 overlay":       {ociImageConfig, []siftest.Blob{good, {MediaType: "application/vnd.sylabs.image.layer.v1.ext3", Data: []byte("x")}}, ErrExt3},
		"unknown layer":      {ociImageConfig, []siftest.Blob{{MediaType: "text/plain", Data: []byte("x")}}, ErrFileSystem},
		"tar without digest": {`{"architecture":"amd64","os":"linux"}`, []siftest.Blob{{MediaType: typeLayer, Data: []byte("x")}}, ErrCorrupt},
		"broken config":      {`{`, []siftest.Blob{good}, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(t.Context(), source(t, siftest.OCISIF(t, c.config, c.layers...)), amd64); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestABlobWithAnotherContentThanItsDigestIsRefused(t *testing.T) {
	data := squashfsLayer(t, siftest.Tree{"a": strings.Repeat("text ", 100)})
	for _, object := range []uint32{1, 2, 3} { // layer, configuration, manifest
		path := siftest.OCISIF(t, ociImageConfig, data)
		var off, size int64
		siftest.Edit(t, path, func(f *apptainer.FileImage) {
			d, err := f.GetDescriptor(apptainer.WithID(object))
			if err != nil {
				t.Fatal(err)
			}
			off, size = d.Offset(), d.Size()
		})
		// Inside the JSON the first character of a name, in the squashfs its padding.
		at := off + 2
		if object == 1 {
			at = off + size - 1
		}
		siftest.Flip(t, path, at)
		img, err := Open(t.Context(), source(t, path), amd64)
		if err == nil {
			_, err = img.Convert(t.Context(), func(int) (io.Writer, error) { return nil, nil }, ConvertOptions{})
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("object %d: got %v", object, err)
		}
	}
}

func TestOfSeveralImagesInAnOCISIFTheOneForThisMachineCounts(t *testing.T) {
	layer := squashfsLayer(t, siftest.Tree{"a": ""})
	blob := func(b []byte) siftest.Object { return siftest.Object{Type: apptainer.DataOCIBlob, Data: b} }
	build := func(archs ...string) string {
		var objects []siftest.Object
		var list []any
		for _, arch := range archs {
			cfg := siftest.Blob{MediaType: typeConfig, Data: []byte(strings.Replace(ociImageConfig, "amd64", arch, 1))}
			raw, _ := json.Marshal(map[string]any{"schemaVersion": 2, "config": cfg.Descriptor(), "layers": []any{layer.Descriptor()}})
			d := siftest.Blob{MediaType: typeManifest, Data: raw}.Descriptor()
			d["platform"] = map[string]string{"architecture": arch, "os": "linux"}
			list = append(list, d)
			objects = append(objects, blob(cfg.Data), blob(raw))
		}
		raw, _ := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": list})
		return siftest.Write(t, append(objects, blob(layer.Data), siftest.Object{Type: apptainer.DataOCIRootIndex, Data: raw})...)
	}
	if img := open(t, build("arm64", "amd64")); img.Architecture != "amd64" {
		t.Error(img.Architecture)
	}
	for want, path := range map[error]string{
		ErrArchitecture:   build("arm64", "s390x"),
		ErrSeveralSystems: build("amd64", "amd64"),
		ErrNoSystem:       build(),
	} {
		if _, err := Open(t.Context(), source(t, path), amd64); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}
