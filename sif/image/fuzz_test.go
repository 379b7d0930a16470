package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/v6node/v6node/sif/internal/fuzztest"
	"github.com/v6node/v6node/sif/internal/siftest"
	"github.com/v6node/v6node/sif/layer"
	"github.com/v6node/v6node/sif/squashfs"
)

// kinds are what a file may be refused as.
var kinds = []error{
	ErrNotSIF, ErrCorrupt, ErrLimit, ErrEncrypted, ErrExt3, ErrFileSystem, ErrOverlay, ErrNoSystem, ErrSeveralSystems, ErrArchitecture,
	squashfs.ErrCorrupt, squashfs.ErrUnsupported, squashfs.ErrLimit, layer.ErrUnrepresentable,
}

// check wants an error of a known kind that is short enough for a log.
func check(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if len(err.Error()) > 4096 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	for _, k := range kinds {
		if errors.Is(err, k) {
			return
		}
	}
	t.Errorf("unexpected kind of error: %v", err)
}

// tryBounded tries bytes. An image with one layer needs a few buffers of 1 MiB and its
// checked chunks; one with 256 layers needs the buffers again and again.
func tryBounded(t *testing.T, b []byte) {
	t.Helper()
	fuzztest.Bounded(t, 1<<30, func() { check(t, try(t, b)) })
}

// plainSIF is a small image in which nothing is compressed, so that changes reach what
// is inside.
func plainSIF(tb testing.TB) []byte {
	tb.Helper()
	tree := siftest.Apptainer("export A=b\n", "true\n", map[string]string{"a": "b"})
	return read(tb, siftest.Write(tb, siftest.System(siftest.Squashfs(tb, tree, "-noI", "-noD", "-noF", "-noX", "-noId", "-b", "4096"))))
}

func read(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// FuzzSIF takes any bytes for a SIF.
func FuzzSIF(f *testing.F) {
	native := smallSIF(f)
	f.Add(native)
	f.Add(plainSIF(f))
	f.Add(read(f, siftest.OCISIF(f, ociImageConfig, squashfsLayer(f, siftest.Tree{"a": "b"}), squashfsLayer(f, siftest.Tree{"c": "d"}))))
	f.Add(native[:descriptorTable+descriptorSize])
	f.Add([]byte{})
	f.Fuzz(tryBounded)
}

// FuzzDescriptors changes only header and descriptors, where a fuzzer that has to find
// them in a whole file rarely comes.
func FuzzDescriptors(f *testing.F) {
	native := smallSIF(f)
	oci := read(f, siftest.OCISIF(f, ociImageConfig, squashfsLayer(f, siftest.Tree{"a": "b"})))
	const objects = 6
	for _, b := range [][]byte{native, oci} {
		f.Add(b[:headerSize], b[descriptorTable:descriptorTable+objects*descriptorSize], len(b) == len(oci))
	}
	f.Fuzz(func(t *testing.T, header, descriptors []byte, second bool) {
		b := bytes.Clone(native)
		if second {
			b = bytes.Clone(oci)
		}
		copy(b[:headerSize], header)
		copy(b[magicOffset:], magicNumber+version)
		copy(b[descriptorTable:descriptorTable+objects*descriptorSize], descriptors)
		tryBounded(t, b)
	})
}

// FuzzOCIDocuments takes any text for the index, the manifest or the configuration of an
// OCI-SIF whose digests are right.
func FuzzOCIDocuments(f *testing.F) {
	l := squashfsLayer(f, siftest.Tree{"a": "b"}, "-noD", "-noF", "-noI")
	good := siftest.OCIDocuments(f, ociImageConfig, l)
	for n, text := range [][]byte{good.Index, good.Manifest, good.Config} {
		f.Add(uint8(n), text)
		f.Add(uint8(n), []byte("{}"))
		f.Add(uint8(n), bytes.ReplaceAll(text, []byte("sha256:"), []byte("sha512:")))
		f.Add(uint8(n), bytes.ReplaceAll(text, []byte("squashfs"), []byte("ext3")))
	}
	f.Add(uint8(1), bytes.Replace(good.Manifest, []byte(siftest.SquashfsLayer), []byte(typeLayer), 1))
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		d := good
		switch which % 3 {
		case 0:
			d.Index = text
		case 1:
			d.Manifest, d.Index = text, siftest.OCIIndex(t, text)
		case 2:
			d = siftest.OCIDocuments(t, string(text), l)
		}
		path := siftest.WriteOCI(t, d, l)
		defer os.RemoveAll(filepath.Dir(path))
		tryBounded(t, read(t, path))
	})
}

// FuzzOCIConfig takes any text for the OCI configuration in a native SIF. One that is
// accepted says in the result what it said, and gives the same digest again.
func FuzzOCIConfig(f *testing.F) {
	root := siftest.System(siftest.Squashfs(f, siftest.Apptainer("", "true\n", map[string]string{"org.label-schema.x": "y"})))
	for _, text := range []string{
		`{"Cmd":["x"]}`, `{"Entrypoint":["a","b"],"Env":["A=b"],"User":"1:2","WorkingDir":"/w","Labels":{"a":"b"}}`,
		`{"Labels":null,"Env":[""],"ExposedPorts":{"1/tcp":{}}}`, `[]`, `null`, ``, `{"Cmd":"x"}`, `{"Cmd":["\ud800\u0000<>"]}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := siftest.Write(t, root, siftest.JSON("oci-config.json", text))
		defer os.RemoveAll(filepath.Dir(path))
		var results [2]*Result
		for n := range results {
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			results[n], err = use(t, file)
			check(t, err)
			if err != nil {
				return
			}
		}
		if !reflect.DeepEqual(results[0], results[1]) {
			t.Fatalf("two results: %s, %s", results[0].Config, results[1].Config)
		}
		var said Config
		var got imageConfig
		if err := errors.Join(json.Unmarshal([]byte(text), &said), json.Unmarshal(results[0].Config, &got)); err != nil {
			t.Fatal(err)
		}
		if got.Config.User != said.User || got.Config.WorkingDir != said.WorkingDir {
			t.Fatalf("%s became %s", text, results[0].Config)
		}
		for name, value := range said.Labels {
			if got.Config.Labels[name] != value {
				t.Fatalf("the label %q of %s became that of %s", name, text, results[0].Config)
			}
		}
	})
}
