//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/apptainer/sif/v2/pkg/integrity"
	sif "github.com/apptainer/sif/v2/pkg/sif"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

// removal is held by whoever removes converted images, or would miss them: all
// nodes of a runtime share its store.
var removal sync.Mutex

func sifScenarios() []scenario {
	return oneByOne([]scenario{
		{"a SIF file runs, and is converted once", sifRuns},
		{"a SIF file in a registry with a login runs, and is downloaded once", orasRuns},
		{"a SIF file's environment is sourced", sifEnvironment},
		{"a SIF file that is not there, or not inside, does not run", sifNames},
		{"only SIF files that are signed and allowed run", sifSignatures},
	})
}

// oneByOne are scenarios that remove what the runtime has of converted and imported
// images, or would miss it.
func oneByOne(all []scenario) []scenario {
	for i, s := range all {
		all[i].run = func(t *testing.T, w *world) {
			removal.Lock()
			defer removal.Unlock()
			s.run(t, w)
		}
	}
	return all
}

// sifFile is a SIF file of the test algorithm.
type sifFile struct{ path, digest string }

func (f *sifFile) name() string { return "sif:" + strings.TrimSuffix(filepath.Base(f.path), ".sif") }

// seal makes the digest anew, after a change.
func (f *sifFile) seal(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	f.digest = "sha256:" + hex.EncodeToString(sum[:])
}

// object is one object of a SIF file.
func object(t *testing.T, kind sif.DataType, data []byte, o ...sif.DescriptorInputOpt) sif.DescriptorInput {
	t.Helper()
	d, err := sif.NewDescriptorInput(kind, bytes.NewReader(data), o...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sif makes a SIF file of the test algorithm in dir. Algorithms see the mark as
// IMAGE_MARK. With a shell the image has Apptainer's scripts, else an OCI
// configuration.
func (w *world) sif(t *testing.T, dir, name, mark string, shell bool) *sifFile {
	t.Helper()
	binary, err := os.ReadFile(w.programs.Algorithm("testalgo"))
	if err != nil {
		t.Fatal(err)
	}
	files := append(imagekit.Skeleton(), imagekit.File{Path: "/algorithm", Mode: 0o755, Data: binary})
	var objects []sif.DescriptorInput
	if shell {
		files = append(files, hostShell(t)...)
		files = append(files,
			imagekit.File{Path: "/.singularity.d/env/90-environment.sh", Mode: 0o755, Data: []byte("export PKG_NAME=testalgo IMAGE_MARK='" + mark + "'\n")},
			imagekit.File{Path: "/.singularity.d/runscript", Mode: 0o755, Data: []byte("#!/bin/sh\nexec /algorithm\n")})
	} else {
		config := fmt.Sprintf(`{"Entrypoint":["/algorithm"],"Env":["PKG_NAME=testalgo","IMAGE_MARK=%s"]}`, mark)
		objects = append(objects, object(t, sif.DataGenericJSON, []byte(config), sif.OptObjectName("oci-config.json")))
	}
	objects = append(objects, object(t, sif.DataPartition, squashfs(t, files), sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "amd64")))
	f := &sifFile{path: filepath.Join(dir, name+".sif")}
	image, err := sif.CreateContainerAtPath(f.path, sif.OptCreateWithDescriptors(objects...))
	if err != nil {
		t.Fatal(err)
	}
	if err := image.UnloadContainer(); err != nil {
		t.Fatal(err)
	}
	f.seal(t)
	return f
}

// squashfs packs files as mksquashfs does.
func squashfs(t *testing.T, files []imagekit.File) []byte {
	t.Helper()
	root, out := t.TempDir(), filepath.Join(t.TempDir(), "image.squashfs")
	for _, f := range files {
		path := filepath.Join(root, f.Path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case strings.HasSuffix(f.Path, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, f.Data, f.Mode.Perm())
		}
		if err == nil {
			err = os.Chmod(path, f.Mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if text, err := exec.CommandContext(t.Context(), "mksquashfs", root, out, "-quiet", "-no-progress", "-all-root", "-comp", "gzip", "-Xcompression-level", "1").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs (Debian: squashfs-tools): %v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hostShell is this machine's shell with what it is linked to.
func hostShell(t *testing.T) []imagekit.File {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "ldd", "/bin/sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := append(regexp.MustCompile(`/\S+`).FindAllString(string(text), -1), "/bin/sh")
	var out []imagekit.File
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, imagekit.File{Path: p, Mode: 0o755, Data: b})
	}
	return out
}

// artifact puts a SIF file into a registry as `apptainer push` does.
func artifact(t *testing.T, r *imagekit.Registry, repository string, f *sifFile) imagekit.Ref {
	t.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(b, "application/vnd.sylabs.sif.layer.v1.sif")})
	if err != nil {
		t.Fatal(err)
	}
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), "application/vnd.sylabs.sif.config.v1+json")
	ref, err := r.Push(repository, "v1", img)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// fetched counts how often the node has given an image to its runtime, and how
// often it converted it for that.
func (n *node) fetched(name string) (fetched, converted int) {
	for line := range strings.Lines(n.Log(1 << 20)) {
		if strings.Contains(line, `msg="image fetched"`) && strings.Contains(line, name) {
			fetched++
			converted += strings.Count(line, "converted=true")
		}
	}
	return fetched, converted
}

// wants compares the counts of fetched.
func (n *node) wants(t *testing.T, when, name string, fetched, converted int) {
	t.Helper()
	if f, c := n.fetched(name); f != fetched || c != converted {
		t.Errorf("%s: %s was given to the runtime %d times and converted %d times, want %d and %d", when, name, f, c, fetched, converted)
	}
}

// mark runs an image and returns its mark.
func (n *node) mark(t *testing.T, ref string) string {
	t.Helper()
	return completed[environment](t, n.call(t, "env", nil, image(ref))).Raw["IMAGE_MARK"]
}

// unpulled removes the images of SIF files from the runtime.
func (n *node) unpulled(t *testing.T) {
	t.Helper()
	list, err := n.runtime(t).ListImages(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		for _, d := range i.RepoDigests {
			if strings.Contains(d, "/sif/") {
				// While the container that used it is there a runtime may refuse.
				eventually(t, func() error { return n.runtime(t).RemoveImage(within(t), i.ID) })
			}
		}
	}
}

// shed looks for layers of SIF files where the node's own containerd keeps what
// it has pulled: it has unpacked them, and the node can make them again.
func (n *node) shed(t *testing.T) {
	t.Helper()
	store := filepath.Join(n.StateDir, "containerd", "io.containerd.content.v1.content", "blobs", "sha256")
	if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
		return // the runtime is another's
	}
	records, err := filepath.Glob(filepath.Join(n.StateDir, "sif", "images", "*", "record.json"))
	if err != nil || len(records) == 0 {
		t.Fatal("nothing was converted", err)
	}
	for _, r := range records {
		var record struct {
			Digest string
			Layers []struct{ Digest string }
		}
		b, err := os.ReadFile(r)
		if err == nil {
			err = json.Unmarshal(b, &record)
		}
		if err != nil || len(record.Layers) == 0 {
			t.Fatalf("%s: %v, %d layers", r, err, len(record.Layers))
		}
		if _, err := os.Stat(filepath.Join(store, strings.TrimPrefix(record.Digest, "sha256:"))); err != nil {
			t.Errorf("the manifest of %s: %v", r, err)
		}
		for _, l := range record.Layers {
			if _, err := os.Stat(filepath.Join(store, strings.TrimPrefix(l.Digest, "sha256:"))); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a copy of the layer %s stays in the runtime's store (%v)", l.Digest, err)
			}
		}
	}
}

// sifNode starts a node with a directory for SIF files.
func (w *world) sifNode(t *testing.T, dir string, extra map[string]any) *node {
	t.Helper()
	section := map[string]any{"directories": []string{dir}}
	for k, v := range extra {
		if k == "keys" {
			section[k] = v
			delete(extra, k)
		}
	}
	all := map[string]any{"sif": section}
	for k, v := range extra {
		all[k] = v
	}
	return w.start(t, nodeOptions{Extra: all})
}

// place makes a directory that the world's nodes can read, whoever runs them.
func (w *world) place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(w.dir, "place-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func sifRuns(t *testing.T, w *world) {
	dir := w.place(t)
	f := w.sif(t, dir, "algo", fmt.Sprintf("first %d", w.number()), false)
	n := w.sifNode(t, dir, nil)
	first := n.mark(t, "sif:algo")
	if !strings.HasPrefix(first, "first") {
		t.Errorf("the image with the mark %q ran", first)
	}
	pinned := "sif:algo@" + f.digest
	n.wants(t, "the first start", pinned, 1, 1)
	n.shed(t)
	if got := n.mark(t, pinned); got != first {
		t.Errorf("by digest the image with the mark %q ran", got)
	}
	n.wants(t, "the second start", pinned, 1, 1)

	n.unpulled(t)
	n.mark(t, "sif:algo")
	n.wants(t, "the runtime's copy was removed", pinned, 2, 1)
	n.unpulled(t)
	cached, err := filepath.Glob(filepath.Join(n.StateDir, "sif", "images", "*"))
	for _, c := range cached {
		err = errors.Join(err, os.RemoveAll(c))
	}
	if err != nil {
		t.Fatal(err)
	}
	n.mark(t, "sif:algo")
	n.wants(t, "the cache was emptied too", pinned, 3, 2)

	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	n.mark(t, "sif:algo")
	n.wants(t, "after a restart", pinned, 3, 2)

	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	w.sif(t, dir, "algo", "second", false)
	if got := n.mark(t, "sif:algo"); got != "second" {
		t.Errorf("of the new file the mark is %q", got)
	}
	if done := n.call(t, "env", nil, image(pinned)); done.Status != standin.StatusNoImage {
		t.Errorf("the old file, by its digest, ended as %q", done.Status)
	}
}

func orasRuns(t *testing.T, w *world) {
	const user, password = "reader", "open-sesame"
	registry := w.registry(t, imagekit.RegistryOptions{Username: user, Password: password})
	f := w.sif(t, t.TempDir(), "algo", fmt.Sprintf("oras %d", w.number()), false)
	ref := artifact(t, registry, "group/algo", f)
	login := []map[string]any{{"registry": registry.Host() + "/group", "username": user, "password": password}}
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"docker_registries": login, "policies": map[string]any{"allowed_algorithms": []string{f.digest}},
	}})
	if got := n.mark(t, "oras://"+ref.Tag); !strings.HasPrefix(got, "oras ") {
		t.Errorf("the image with the mark %q ran", got)
	}
	n.mark(t, "oras://"+ref.Pinned)
	n.wants(t, "two starts", "oras://"+ref.Pinned, 1, 1)
	if got := registry.Counts().Blobs; got != 1 {
		t.Errorf("%d blobs were downloaded", got)
	}
	if strings.Contains(n.Log(1<<20), password) {
		t.Error("the log has the password")
	}
	// The login is for one group of repositories: others are asked without.
	other := artifact(t, registry, "other/algo", f)
	if done := n.call(t, "env", nil, image("oras://"+other.Tag)); done.Status != standin.StatusNoImage || !strings.Contains(done.Text, "docker_registries") {
		t.Errorf("without a login: %q, %q", done.Status, done.Text)
	}
	missing := "oras://" + registry.Host() + "/group/missing:v1"
	if done := n.call(t, "env", nil, image(missing)); done.Status != standin.StatusNoImage || !strings.Contains(done.Text, missing) {
		t.Errorf("what is not there: %q, %q", done.Status, done.Text)
	}
	// The name of an image in the same registry is another name.
	if done := n.call(t, "env", nil, image(ref.Tag)); done.Status == standin.StatusCompleted {
		t.Error("a SIF file ran as an ordinary image")
	}
}

func sifEnvironment(t *testing.T, w *world) {
	dir := w.place(t)
	w.sif(t, dir, "scripted", "sourced by the shell", true)
	n := w.sifNode(t, dir, nil)
	e := completed[environment](t, n.call(t, "env", nil, image("sif:scripted")))
	if e.Raw["IMAGE_MARK"] != "sourced by the shell" || e.Raw["PKG_NAME"] != "testalgo" {
		t.Errorf("the algorithm sees %q", e.Raw)
	}
}

func sifNames(t *testing.T, w *world) {
	outside, dir := w.place(t), w.place(t)
	f := w.sif(t, outside, "secret", "outside", false)
	if err := os.Symlink(f.path, filepath.Join(dir, "link.sif")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text.sif"), []byte("not a SIF file"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := w.sifNode(t, dir, nil)
	for _, name := range []string{"sif:missing", "sif:../" + filepath.Base(outside) + "/secret", "sif:" + f.path, "sif:link", "sif:text"} {
		done := n.call(t, "env", nil, image(name))
		if done.Status != standin.StatusNoImage || !strings.Contains(done.Text, "v6node: ") {
			t.Errorf("%s ended as %q: %q", name, done.Status, done.Text)
		}
		n.gone(t, done.ID)
	}
}

func sifSignatures(t *testing.T, w *world) {
	trusted, public := pgp(t)
	stranger, _ := pgp(t)
	dir := w.place(t)
	key := filepath.Join(w.place(t), "keys.asc")
	if err := os.WriteFile(key, public, 0o644); err != nil {
		t.Fatal(err)
	}
	sign := func(name string, o ...integrity.SignerOpt) *sifFile {
		f := w.sif(t, dir, name, fmt.Sprintf("%s %d", name, w.number()), false)
		change(t, f, func(i *sif.FileImage) error {
			s, err := integrity.NewSigner(i, o...)
			if err != nil {
				return err
			}
			return s.Sign()
		})
		return f
	}
	good := sign("good", integrity.OptSignWithEntity(trusted))
	other := sign("other", integrity.OptSignWithEntity(trusted))
	unsigned := w.sif(t, dir, "unsigned", "unsigned", false)
	partly := sign("partly", integrity.OptSignWithEntity(trusted), integrity.OptSignObjects(2))
	wrongly := sign("wrongly", integrity.OptSignWithEntity(stranger))
	tampered := sign("tampered", integrity.OptSignWithEntity(trusted))
	flip(t, tampered)

	n := w.sifNode(t, dir, map[string]any{
		"keys":     []string{key},
		"policies": map[string]any{"allowed_algorithms": []string{good.digest, "sif:(unsigned|partly|wrongly|tampered)"}},
	})
	if got := n.mark(t, good.name()); !strings.HasPrefix(got, "good") {
		t.Errorf("the image with the mark %q ran", got)
	}
	for _, c := range []struct {
		file *sifFile
		why  string
	}{
		{other, "allowed_algorithms"},
		{unsigned, "not signed"},
		{partly, "partly signed"},
		{wrongly, "trusted key"},
		{tampered, "changed after it was signed"},
	} {
		done := n.call(t, "env", nil, image(c.file.name()))
		if done.Status != standin.StatusNotAllowed || !strings.Contains(done.Text, c.why) || done.Data != nil {
			t.Errorf("%s ended as %q: %q", c.file.name(), done.Status, done.Text)
		}
		if !strings.Contains(n.Log(1<<20), c.why) {
			t.Errorf("%s: the node's log does not say %q", c.file.name(), c.why)
		}
		n.gone(t, done.ID)
	}
}

// pgp makes a key pair, and the public key as gpg exports it.
func pgp(t *testing.T) (*openpgp.Entity, []byte) {
	t.Helper()
	e, err := openpgp.NewEntity("Test", "", "test@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	out, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(out); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return e, b.Bytes()
}

// change changes a SIF file by the SIF library.
func change(t *testing.T, f *sifFile, do func(*sif.FileImage) error) {
	t.Helper()
	i, err := sif.LoadContainerFromPath(f.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(i); err != nil {
		t.Fatal(err)
	}
	if err := i.UnloadContainer(); err != nil {
		t.Fatal(err)
	}
	f.seal(t)
}

// flip changes one byte of the image's files.
func flip(t *testing.T, f *sifFile) {
	t.Helper()
	change(t, f, func(i *sif.FileImage) error {
		d, err := i.GetDescriptor(sif.WithPartitionType(sif.PartPrimSys))
		if err != nil {
			return err
		}
		out, err := os.OpenFile(f.path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer out.Close()
		b := make([]byte, 1)
		at := d.Offset() + d.Size()/2
		if _, err := out.ReadAt(b, at); err != nil {
			return err
		}
		b[0] ^= 0xff
		_, err = out.WriteAt(b, at)
		return err
	})
}
