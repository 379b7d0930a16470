package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"

	"github.com/v6node/v6node/sif/internal/imagetest"
	"github.com/v6node/v6node/sif/internal/siftest"
)

var amd64 = Options{Architecture: "amd64"}

func source(tb testing.TB, path string) *Source {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	src, err := NewSource(tb.Context(), f, 0, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { src.Close() })
	return src
}

func open(tb testing.TB, path string) *Image {
	tb.Helper()
	img, err := Open(tb.Context(), source(tb, path), amd64)
	if err != nil {
		tb.Fatal(err)
	}
	return img
}

// convert gives the result and the layers' bytes.
func convert(tb testing.TB, img *Image) (*Result, [][]byte) {
	tb.Helper()
	var layers []*bytes.Buffer
	res, err := img.Convert(tb.Context(), func(int) (io.Writer, error) {
		layers = append(layers, &bytes.Buffer{})
		return layers[len(layers)-1], nil
	}, ConvertOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	var out [][]byte
	for _, l := range layers {
		out = append(out, l.Bytes())
	}
	return res, out
}

func TestAnImageOfApptainerConvertsToExactlyItsFiles(t *testing.T) {
	for _, g := range imagetest.Goldens(t) {
		t.Run(g.Name, func(t *testing.T) {
			img := open(t, g.File.Name())
			res, layers := convert(t, img)
			imagetest.Equal(t, imagetest.ListTar(t, bytes.NewReader(layers[0])), g.Nodes)
			if got := siftest.Digest(layers[0]); got != res.Layers[0].Digest || int64(len(layers[0])) != res.Layers[0].Size {
				t.Errorf("the layer is %s, the manifest says %+v", got, res.Layers[0])
			}
		})
	}
}

// The digests are a promise: policies name them. Whoever has to change them here breaks
// the policies of every site, and needs a reason for it and a line in the changelog.
func TestTheDigestOfAnImageIsTheSameForEver(t *testing.T) {
	want := map[string]string{}
	for _, g := range imagetest.Goldens(t) {
		res, err := open(t, g.File.Name()).Convert(t.Context(), func(int) (io.Writer, error) { return nil, nil }, ConvertOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := goldenDigests[g.Name]; !ok || w != res.Digest {
			t.Errorf("%s converts to %s, expected %q", g.Name, res.Digest, w)
		}
		want[g.Name] = res.Digest
	}
	if want["docker-derived.sif"] != want["signed-dsse.sif"] {
		t.Error("a signature changes what an image converts to")
	}
}

func TestManifestAndConfigurationAreWhatOCIWants(t *testing.T) {
	path := siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Apptainer("", "exec true\n", map[string]string{"a": "<b>&"}))))
	res, layers := convert(t, open(t, path))
	layer := siftest.Digest(layers[0])
	wantConfig, err := json.Marshal(map[string]any{
		"created": "2024-05-06T07:08:09Z", "architecture": "amd64", "os": "linux",
		"config": map[string]any{
			"Env":        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			"Entrypoint": []string{"/bin/sh", "-c", entryScript, "sh", "/.singularity.d/runscript"},
			"Labels":     map[string]string{"a": "<b>&"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer}},
	})
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, res.Config, wantConfig)
	if !bytes.Contains(res.Config, []byte("<b>&")) {
		t.Error("the configuration is written with escapes for HTML")
	}
	wantManifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": siftest.Digest(res.Config), "size": len(res.Config)},
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": len(layers[0])}},
	})
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, res.Manifest, wantManifest)
	if res.Digest != siftest.Digest(res.Manifest) || res.ConfigDigest != siftest.Digest(res.Config) {
		t.Error("the digests are not those of manifest and configuration")
	}
}

func sameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var a, b any
	if err := errors.Join(json.Unmarshal(got, &a), json.Unmarshal(want, &b)); err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Errorf("got  %s\nwant %s", x, y)
	}
}

func TestTheSameObjectsConvertToTheSameDigestWhereverTheyLie(t *testing.T) {
	root := siftest.Squashfs(t, siftest.Apptainer("", "exec true\n", nil))
	a, _ := convert(t, open(t, siftest.Write(t, siftest.System(root))))
	more := siftest.Write(t, siftest.Object{Type: apptainer.DataDeffile, Data: bytes.Repeat([]byte("x"), 5000)}, siftest.System(root))
	b, _ := convert(t, open(t, more))
	if a.Digest != b.Digest {
		t.Errorf("%s and %s", a.Digest, b.Digest)
	}
}

func TestWhatCannotRunIsRefusedByName(t *testing.T) {
	data := make([]byte, 4096)
	part := func(fs apptainer.FSType, p apptainer.PartType, arch string) siftest.Object {
		return siftest.Partition(data, fs, p, arch)
	}
	for name, c := range map[string]struct {
		objects []siftest.Object
		want    error
	}{
		"encrypted":            {[]siftest.Object{part(apptainer.FsEncryptedSquashfs, apptainer.PartPrimSys, "amd64")}, ErrEncrypted},
		"gocryptfs":            {[]siftest.Object{part(apptainer.FsGocryptfsSquashfs, apptainer.PartPrimSys, "amd64")}, ErrEncrypted},
		"ext3":                 {[]siftest.Object{part(apptainer.FsExt3, apptainer.PartPrimSys, "amd64")}, ErrExt3},
		"raw":                  {[]siftest.Object{part(apptainer.FsRaw, apptainer.PartPrimSys, "amd64")}, ErrFileSystem},
		"unknown file system":  {[]siftest.Object{part(77, apptainer.PartPrimSys, "amd64")}, ErrFileSystem},
		"other architecture":   {[]siftest.Object{part(apptainer.FsSquash, apptainer.PartPrimSys, "arm64")}, ErrArchitecture},
		"only data":            {[]siftest.Object{part(apptainer.FsSquash, apptainer.PartData, "amd64")}, ErrNoSystem},
		"no partition":         {[]siftest.Object{siftest.JSON("x", "{}")}, ErrNoSystem},
		"nothing":              {nil, ErrNoSystem},
		"secondary system":     {[]siftest.Object{part(apptainer.FsSquash, apptainer.PartSystem, "amd64")}, ErrNoSystem},
		"two systems":          {[]siftest.Object{part(apptainer.FsSquash, apptainer.PartPrimSys, "amd64"), part(apptainer.FsSquash, apptainer.PartSystem, "amd64")}, ErrSeveralSystems},
		"overlay":              {[]siftest.Object{part(apptainer.FsSquash, apptainer.PartPrimSys, "amd64"), part(apptainer.FsExt3, apptainer.PartOverlay, "amd64")}, ErrOverlay},
		"two configurations":   {[]siftest.Object{siftest.System(siftest.Squashfs(t, siftest.Tree{"a": ""})), siftest.JSON("oci-config.json", "{}"), siftest.JSON("oci-config.json", "{}")}, ErrCorrupt},
		"broken configuration": {[]siftest.Object{siftest.System(siftest.Squashfs(t, siftest.Tree{"a": ""})), siftest.JSON("oci-config.json", `{"Env":7}`)}, ErrCorrupt},
		"large configuration":  {[]siftest.Object{siftest.System(siftest.Squashfs(t, siftest.Tree{"a": ""})), siftest.JSON("oci-config.json", strings.Repeat(" ", maxJSON+1))}, ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), source(t, siftest.Write(t, c.objects...)), amd64)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("not a sentence: %q", err)
			}
		})
	}
}

func TestAnArchitectureIsComparedWithTheMachineAndNotWithTheProgram(t *testing.T) {
	path := siftest.Write(t, siftest.Partition(siftest.Squashfs(t, siftest.Tree{"a": ""}), apptainer.FsSquash, apptainer.PartPrimSys, "s390x"))
	img, err := Open(t.Context(), source(t, path), Options{Architecture: "s390x"})
	if err != nil || img.Architecture != "s390x" {
		t.Fatalf("%v, %v", img, err)
	}
}

const dockerConfig = `{"Entrypoint":["/bin/echo","entry"],"Cmd":["from","cmd"],"Env":["PATH=/opt/bin:/bin","A=b c"],"User":"1000:1000","WorkingDir":"/opt","Labels":{"l":"v"},"ExposedPorts":{"1/tcp":{}}}`

func TestTheOCIConfigurationOfAnImageCounts(t *testing.T) {
	tree := siftest.Apptainer("", siftest.OCIRunscript, map[string]string{"l": "other", "org.label-schema.build-date": "x", "more": "from %labels"})
	tree[".singularity.d/env/10-docker2singularity.sh"] = "export A=\"${A:-\"b c\"}\"\n"
	img := open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, tree)), siftest.JSON("oci-config.json", dockerConfig)))
	want := Config{
		Entrypoint: []string{"/bin/echo", "entry"}, Cmd: []string{"from", "cmd"}, Env: []string{"PATH=/opt/bin:/bin", "A=b c"},
		User: "1000:1000", WorkingDir: "/opt", Labels: map[string]string{"l": "v", "more": "from %labels"},
	}
	sameConfig(t, img.Config, want)
	if want := []uint32{1, 2}; !slices.Equal(img.Used(), want) {
		t.Errorf("uses the objects %v, expected %v", img.Used(), want)
	}
}

func TestARunscriptOrEnvironmentThatSomeoneWroteIsNotIgnored(t *testing.T) {
	docker := "export A=\"${A:-\"b c\"}\"\n"
	tree := siftest.Apptainer("", "exec python algorithm.py\n", nil)
	tree[".singularity.d/env/10-docker2singularity.sh"] = docker
	img := open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, tree)), siftest.JSON("oci-config.json", dockerConfig)))
	sameConfig(t, img.Config, Config{
		Entrypoint: entry("/.singularity.d/runscript"), Env: []string{"PATH=/opt/bin:/bin"},
		User: "1000:1000", WorkingDir: "/opt", Labels: map[string]string{"l": "v"},
	})

	tree = siftest.Apptainer("  export A=mine\n", siftest.OCIRunscript, nil)
	tree[".singularity.d/env/10-docker2singularity.sh"] = docker
	img = open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, tree)), siftest.JSON("oci-config.json", dockerConfig)))
	sameConfig(t, img.Config, Config{
		Entrypoint: entry("/bin/echo", "entry"), Cmd: []string{"from", "cmd"}, Env: []string{"PATH=/opt/bin:/bin"},
		User: "1000:1000", WorkingDir: "/opt", Labels: map[string]string{"l": "v"},
	})
}

func TestAnImageWithoutARunscriptHasNoEntrypoint(t *testing.T) {
	img := open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"bin/sh": ""}))))
	sameConfig(t, img.Config, Config{Env: []string{defaultPath}})

	// One that cannot be executed is none, as for Apptainer.
	tree := siftest.Apptainer("", "true\n", nil)
	img = open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, tree, "-p", ".singularity.d/runscript m 644 0 0"))))
	sameConfig(t, img.Config, Config{Env: []string{defaultPath}})
}

func TestLabelsThatCannotBeReadAreNone(t *testing.T) {
	for _, text := range []string{"", "[]", "{", `{"a":`, "null"} {
		tree := siftest.Apptainer("", "true\n", nil)
		tree[".singularity.d/labels.json"] = text
		if img := open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, tree)))); img.Config.Labels != nil {
			t.Errorf("%q: %v", text, img.Config.Labels)
		}
	}
	tree := siftest.Apptainer("", "true\n", nil)
	tree[".singularity.d/labels.json"] = `{"text":"kept","number":7}`
	if img := open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, tree)))); len(img.Config.Labels) != 1 || img.Config.Labels["text"] != "kept" {
		t.Errorf("%v", img.Config.Labels)
	}
}

func sameConfig(t *testing.T, got, want Config) {
	t.Helper()
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

func TestConversionEndsWithItsContext(t *testing.T) {
	img := open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": strings.Repeat("x", 1<<20)}))))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := img.Convert(ctx, func(int) (io.Writer, error) { return nil, nil }, ConvertOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAConversionThatWouldBecomeTooLargeIsRefused(t *testing.T) {
	img := open(t, siftest.Write(t, siftest.System(siftest.Squashfs(t, siftest.Tree{"a": strings.Repeat("x", 1<<20)}))))
	if _, err := img.Convert(t.Context(), func(int) (io.Writer, error) { return nil, nil }, ConvertOptions{MaxBytes: 1 << 20}); err == nil {
		t.Error("a megabyte and more fits into a megabyte")
	}
}
