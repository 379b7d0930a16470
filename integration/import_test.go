//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

func importScenarios() []scenario {
	return oneByOne([]scenario{
		{"an imported archive of docker save runs without a registry, until it is removed", dockerImport},
		{"an imported OCI archive runs by the digest that its registry had", ociImport},
		{"an imported image runs by the signature that came with it", signedImport},
		{"an imported SIF file runs", sifImport},
	})
}

// archive writes an archive of the test algorithm's images.
func (w *world) archive(t *testing.T, compress bool, save func(io.Writer) error) string {
	t.Helper()
	path := filepath.Join(w.place(t), "algo.tar")
	err := imagekit.WriteFile(path, compress, save)
	if err == nil {
		err = os.Chmod(path, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build packs the test algorithm with a mark.
func (w *world) build(t *testing.T, mark string, change ...func(*imagekit.Spec)) v1.Image {
	t.Helper()
	s := imagekit.Spec{Binary: w.programs.Algorithm("testalgo"), Files: imagekit.Skeleton(), Env: []string{"PKG_NAME=testalgo", "IMAGE_MARK=" + mark}}
	for _, c := range change {
		c(&s)
	}
	img, err := imagekit.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// importFile runs v6node image import, and returns the digests of the images.
func (n *node) importFile(t *testing.T, args ...string) (digests []string) {
	t.Helper()
	out, errOut, err := n.w.v6node(t, append([]string{"image", "import", "-q", "-o", "json", "--state-dir", n.StateDir}, args...)...)
	if err != nil {
		t.Fatalf("v6node image import: %v\n%s%s", err, out, errOut)
	}
	var list []struct{ Digest string }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		digests = append(digests, i.Digest)
	}
	return digests
}

// dropped removes the runtime's own copies of imported images.
func (n *node) dropped(t *testing.T) {
	t.Helper()
	list, err := n.runtime(t).ListImages(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if strings.Contains(strings.Join(i.RepoDigests, " "), "/imported/") {
			eventually(t, func() error { return n.runtime(t).RemoveImage(within(t), i.ID) })
		}
	}
}

func dockerImport(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	name := registry.Host() + "/suite/saved:1.0"
	other := registry.Host() + "/suite/other:1.0"
	file := w.archive(t, true, func(out io.Writer) error {
		return imagekit.SaveDocker(out, imagekit.Named{Names: []string{name}, What: w.build(t, "saved")}, imagekit.Named{Names: []string{other}, What: w.build(t, "second")})
	})
	registry.Close()
	n := w.start(t, nodeOptions{})
	n.failed(t, n.call(t, "env", nil, image(name)), standin.StatusNoImage, name, "check the network")

	digests := n.importFile(t, file)
	if len(digests) != 2 {
		t.Fatalf("%q were imported", digests)
	}
	pinned := registry.Host() + "/suite/saved@" + digests[0]
	for ref, want := range map[string]string{name: "saved", pinned: "saved", other: "second"} {
		if got := n.mark(t, ref); got != want {
			t.Errorf("%s ran the image with the mark %q", ref, got)
		}
	}
	n.wants(t, "the first runs", pinned, 1, 0)

	// The runtime's copy may go: the node has its own.
	n.dropped(t)
	n.mark(t, name)
	n.wants(t, "the runtime's copy was removed", pinned, 2, 0)
	if _, errOut, err := w.v6node(t, "gc", "--all", "--state-dir", n.StateDir); err != nil {
		t.Errorf("v6node gc: %v %s", err, errOut)
	}
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if got := n.mark(t, pinned); got != "saved" {
		t.Errorf("after a restart the image with the mark %q ran", got)
	}
	if out, errOut, err := w.v6node(t, "image", "ls", "--state-dir", n.StateDir); err != nil || !strings.Contains(out, name) {
		t.Errorf("v6node image ls: %v\n%s%s", err, out, errOut)
	}
	if out, errOut, err := w.v6node(t, "image", "rm", "--state-dir", n.StateDir, name); err != nil {
		t.Errorf("v6node image rm: %v\n%s%s", err, out, errOut)
	}
	n.failed(t, n.call(t, "env", nil, image(name)), standin.StatusNoImage, name)
	if got := n.mark(t, other); got != "second" {
		t.Errorf("the image with the mark %q ran", got)
	}
}

func ociImport(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	index, err := imagekit.Index(w.build(t, "foreign", func(s *imagekit.Spec) { s.Architecture = "s390x" }), w.build(t, "index", func(s *imagekit.Spec) { s.Gzip = true }))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.PushIndex("suite/index", "1.0", index)
	if err != nil {
		t.Fatal(err)
	}
	file := w.archive(t, false, func(out io.Writer) error {
		return imagekit.SaveOCI(out, imagekit.Named{Names: []string{"1.0"}, What: index}, imagekit.Named{Names: []string{"evil"}, What: w.build(t, "evil")})
	})
	registry.Close()
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": map[string]any{"allowed_algorithms": []string{ref.Digest}}}})
	if got := n.importFile(t, file, "--only", "1.0", "--name", ref.Tag); len(got) != 1 || got[0] != ref.Digest {
		t.Fatalf("%q was imported, and not %s", got, ref.Digest)
	}
	for _, name := range []string{ref.Tag, ref.Pinned} {
		if got := n.mark(t, name); got != "index" {
			t.Errorf("%s ran the image with the mark %q", name, got)
		}
	}
	// Policies decide by the digest, whatever the name.
	evil := registry.Host() + "/suite/evil:1.0"
	n.importFile(t, file, "--only", "evil", "--name", evil)
	if done := n.call(t, "env", nil, image(evil)); done.Status != standin.StatusNotAllowed {
		t.Errorf("another image ended as %q", done.Status)
	}
	n.importFile(t, file, "--only", "evil", "--name", ref.Tag)
	if done := n.call(t, "env", nil, image(ref.Tag)); done.Status != standin.StatusNotAllowed {
		t.Errorf("another image under the name ended as %q", done.Status)
	}
	if got := n.mark(t, ref.Pinned); got != "index" {
		t.Errorf("by digest the image with the mark %q ran", got)
	}
}

// As `cosign save` of cosign 3 leaves a signature: in no index.
func signedImport(t *testing.T, w *world) {
	key, public, err := imagekit.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	pub := w.put(t, filepath.Join(w.place(t), "cosign.pub"), string(public), 0o644)
	registry := fmt.Sprintf("r%d.invalid", w.number())
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": map[string]any{"signatures": map[string]any{"keys": pub}}}})
	for name, predicate := range map[string]string{"signed": imagekit.SignPredicate, "attested": "https://spdx.dev/Document"} {
		img := w.build(t, name)
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := imagekit.Bundle(key, digest.String(), predicate)
		if err != nil {
			t.Fatal(err)
		}
		referrer, err := imagekit.Referrer(digest.String(), predicate, bundle)
		if err != nil {
			t.Fatal(err)
		}
		n.importFile(t, "--name", registry+"/suite/"+name+":1.0", w.archive(t, false, func(out io.Writer) error {
			return imagekit.SaveOCI(out, imagekit.Named{What: img}, imagekit.Named{What: referrer, Unlisted: true})
		}))
	}
	if got := n.mark(t, registry+"/suite/signed:1.0"); got != "signed" {
		t.Errorf("the image with the mark %q ran", got)
	}
	if done := n.call(t, "env", nil, image(registry+"/suite/attested:1.0")); done.Status == standin.StatusCompleted {
		t.Error("an image without a signature ran")
	}
}

func sifImport(t *testing.T, w *world) {
	f := w.sif(t, w.place(t), "algo", "imported SIF", false)
	if err := os.Chmod(f.path, 0o644); err != nil {
		t.Fatal(err)
	}
	n := w.start(t, nodeOptions{})
	if got := n.importFile(t, f.path, "--name", "sif:tools/algo"); len(got) != 1 || got[0] != f.digest {
		t.Fatalf("%q was imported", got)
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sif:tools/algo", "sif:tools/algo@" + f.digest} {
		if got := n.mark(t, name); got != "imported SIF" {
			t.Errorf("%s ran the image with the mark %q", name, got)
		}
	}
	if out, errOut, err := w.v6node(t, "image", "rm", "--state-dir", n.StateDir, "sif:tools/algo"); err != nil {
		t.Errorf("v6node image rm: %v\n%s%s", err, out, errOut)
	}
	n.failed(t, n.call(t, "env", nil, image("sif:tools/algo")), standin.StatusNoImage, "sif:tools/algo")
}
