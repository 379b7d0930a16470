package main

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apptainer/sif/v2/pkg/integrity"
	apptainer "github.com/apptainer/sif/v2/pkg/sif"
	sigstore "github.com/sigstore/sigstore/pkg/signature"

	"github.com/v6node/v6node/sif"
)

// imageRun runs "v6node image ARGS".
func imageRun(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	app := newApp()
	var out, errOut bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errOut
	code = perform(t.Context(), app, append([]string{"v6node", "image"}, args...))
	return out.String(), errOut.String(), code
}

// smallSIF writes an OCI-SIF with one layer that is a tar, and the public key of who
// has signed it.
func smallSIF(t *testing.T) (path, key string) {
	t.Helper()
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	try(w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644}))
	try(w.Close())
	var objects []apptainer.DescriptorInput
	add := func(kind apptainer.DataType, mediaType string, b []byte) map[string]any {
		d, err := apptainer.NewDescriptorInput(kind, bytes.NewReader(b))
		try(err)
		objects = append(objects, d)
		return map[string]any{"mediaType": mediaType, "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(b)), "size": len(b)}
	}
	l := add(apptainer.DataOCIBlob, "application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	cfg := fmt.Sprintf(`{"architecture":%q,"os":"linux","config":{"Entrypoint":["/run","it now"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, l["digest"])
	c := add(apptainer.DataOCIBlob, "application/vnd.oci.image.config.v1+json", []byte(cfg))
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "config": c, "layers": []any{l}})
	try(err)
	m := add(apptainer.DataOCIBlob, "application/vnd.oci.image.manifest.v1+json", manifest)
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{m}})
	try(err)
	add(apptainer.DataOCIRootIndex, "", index)

	path, key = filepath.Join(t.TempDir(), "small.sif"), filepath.Join(t.TempDir(), "key.pem")
	f, err := apptainer.CreateContainerAtPath(path, apptainer.OptCreateDeterministic(), apptainer.OptCreateWithDescriptors(objects...))
	try(err)
	public, private, err := ed25519.GenerateKey(nil)
	try(err)
	signer, err := sigstore.LoadED25519Signer(private)
	try(err)
	s, err := integrity.NewSigner(f, integrity.OptSignWithSigner(signer))
	try(err)
	try(s.Sign())
	try(f.UnloadContainer())
	der, err := x509.MarshalPKIXPublicKey(public)
	try(err)
	try(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	return path, key
}

func TestAnImageIsConvertedInspectedAndVerified(t *testing.T) {
	path, key := smallSIF(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	out, errOut, code := imageRun(t, "convert", path, "oci-archive:"+archive+":1", "-o", "json")
	var c convertedImage
	if err := json.Unmarshal([]byte(out), &c); err != nil || code != 0 || len(c.Layers) != 1 || errOut != "" {
		t.Fatalf("%d %v %s\n%s", code, err, errOut, out)
	}
	if _, err := os.Stat(archive); err != nil {
		t.Error(err)
	}
	if _, errOut, code := imageRun(t, "convert", path, "oci-archive:"+archive); code != exitFailure || !strings.Contains(errOut, "exists already") {
		t.Errorf("over an existing file: %d %s", code, errOut)
	}
	out, errOut, code = imageRun(t, "inspect", "--digest", "-o", "json", path)
	var i inspectedImage
	if err := json.Unmarshal([]byte(out), &i); err != nil || code != 0 || i.Converted == nil || i.Converted.Digest != c.Digest || i.SIF != c.SIF || i.Kind != "oci-sif" {
		t.Errorf("%d %v %s\n%s", code, err, errOut, out)
	}
	out, _, code = imageRun(t, "inspect", path)
	if code != 0 || !strings.Contains(out, `/run "it now"`) || !strings.Contains(out, c.SIF) {
		t.Errorf("%d\n%s", code, out)
	}
	out, errOut, code = imageRun(t, "verify", "--key", key, path)
	if code != 0 || !strings.Contains(out, "is signed by key:") {
		t.Errorf("%d %s\n%s", code, errOut, out)
	}
	_, other := smallSIF(t)
	if _, errOut, code := imageRun(t, "verify", path, "--key", other); code != exitFailure || !strings.Contains(errOut, "not signed by a trusted key") {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestImageCommandsRefuseWhatTheyCannotRead(t *testing.T) {
	path, key := smallSIF(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"convert", path}, exitUsage, "SOURCE DESTINATION"},
		{[]string{"convert", path, "somewhere"}, exitUsage, "oci-archive:FILE"},
		{[]string{"convert", key, "oci:" + t.TempDir()}, exitFailure, "not a SIF image"},
		{[]string{"inspect", filepath.Join(t.TempDir(), "none")}, exitFailure, "no such file"},
		{[]string{"inspect", pipe}, exitFailure, "is not a file"},
		{[]string{"verify", "--key", pipe, path}, exitUsage, "is not a file"},
		{[]string{"inspect", "oras://nothing"}, exitFailure, "must name a registry"},
		{[]string{"inspect", "--arch", "s390x", path}, exitFailure, "this machine is s390x"},
		{[]string{"verify", "--key", path, path}, exitUsage, "not a usable public key"},
		{[]string{"verify", path}, exitUsage, "no key is named"},
		{[]string{"ls", "--cache-dir", filepath.Join(t.TempDir(), "none")}, exitFailure, "there is no cache"},
		{[]string{"ls", "--cache-dir", foreign}, exitFailure, "there is no cache"},
		{[]string{"prune", "--cache-dir", foreign}, exitFailure, "there is no cache"},
		{[]string{"prune", "--keep", "much", "--cache-dir", t.TempDir()}, exitUsage, "--keep"},
	} {
		if _, errOut, code := imageRun(t, c.args...); code != c.code || !strings.Contains(errOut, c.text) || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%q: %d %s", c.args, code, errOut)
		}
	}
	if list, err := os.ReadDir(foreign); err != nil || len(list) > 0 {
		t.Errorf("a directory that is no cache was made one: %v, %v", list, err)
	}
}

func TestTheCacheIsListedRemovedAndPruned(t *testing.T) {
	path, _ := smallSIF(t)
	dir := t.TempDir()
	fill := func() string {
		t.Helper()
		s, err := sif.Open(t.Context(), sif.Options{Directories: []string{filepath.Dir(path)}, CacheDir: filepath.Join(dir, "sif")})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Resolve(t.Context(), "sif:small", nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Ensure(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Release(), s.Close()); err != nil {
			t.Fatal(err)
		}
		return r.Digest
	}
	digest := fill()
	out, errOut, code := imageRun(t, "ls", "--state-dir", dir, "-o", "json")
	var list []cachedImage
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 1 || list[0].SIF != digest || list[0].Names[0] != "sif:small" {
		t.Fatalf("%d %v %s\n%s", code, err, errOut, out)
	}
	if out, _, _ := imageRun(t, "ls", "--state-dir", dir); !strings.Contains(out, "sif:small") || !strings.Contains(out, digest[7:19]) {
		t.Errorf("%s", out)
	}
	if _, errOut, code := imageRun(t, "rm", "--state-dir", dir, "ffffffffff"); code != exitFailure || !strings.Contains(errOut, "neither an imported image") {
		t.Errorf("%d %s", code, errOut)
	}
	if out, errOut, code := imageRun(t, "rm", "--state-dir", dir, digest[7:19]); code != 0 || out != digest+"\n" {
		t.Errorf("%d %s\n%s", code, errOut, out)
	}
	fill()
	if out, errOut, code := imageRun(t, "prune", "--cache-dir", filepath.Join(dir, "sif")); code != 0 || !strings.Contains(out, "Total reclaimed space:") {
		t.Errorf("%d %s\n%s", code, errOut, out)
	}
	if out, _, _ := imageRun(t, "ls", "--state-dir", dir, "-o", "json"); out != "[]\n" {
		t.Errorf("%s", out)
	}
}

func TestProgressIsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	for bar, want := range map[bool]string{
		true:  "\r[###############---------------] reading: 500MB of 1GB, 50%, 250MB/s\x1b[K\r\x1b[K\rconverting: 30MB, 15MB/s\x1b[K\r\x1b[K",
		false: "reading: 500MB of 1GB, 50%, 250MB/s\nconverting: 30MB, 15MB/s\n",
	} {
		var b bytes.Buffer
		now := time.Unix(0, 0)
		p := &progressLine{w: &b, bar: bar, now: func() time.Time { return now }, every: time.Second}
		step := func(s sif.Stage, done, total int64, later time.Duration) {
			now = now.Add(later)
			p.show(sif.Progress{Stage: s, Done: done, Total: total})
		}
		step(sif.Reading, 0, 1e9, 0)
		step(sif.Reading, 5e8, 1e9, 2*time.Second)
		step(sif.Reading, 6e8, 1e9, time.Millisecond)
		step(sif.Converting, 0, 0, time.Millisecond)
		step(sif.Converting, 3e7, 0, 2*time.Second)
		p.end()
		p.end()
		if b.String() != want {
			t.Errorf("got  %q\nwant %q", b.String(), want)
		}
	}
}
