package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/image/imported"
)

func packed(t *testing.T, arch, text string) v1.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := imagekit.Build(imagekit.Spec{Binary: file, Architecture: arch})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func archiveFile(t *testing.T, compress bool, save func(io.Writer) error) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "algo.tar")
	if err := imagekit.WriteFile(path, compress, save); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImagesOfAnArchiveAreImportedListedAndRemoved(t *testing.T) {
	state := t.TempDir()
	one, two := packed(t, runtime.GOARCH, "one"), packed(t, runtime.GOARCH, "two")
	file := archiveFile(t, true, func(w io.Writer) error {
		return imagekit.SaveDocker(w, imagekit.Named{Names: []string{"r.example.org/one:1", "python"}, What: one}, imagekit.Named{Names: []string{"r.example.org/two:1"}, What: two})
	})
	out, errOut, code := imageRun(t, "import", file, "--state-dir", state, "-o", "json")
	var got []importedImage
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || len(got) != 2 {
		t.Fatalf("%d %v %s\n%s", code, err, errOut, out)
	}
	id, err := one.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if i := got[0]; i.Kind != "docker-archive" || i.ImageID != id.String() || len(i.Names) != 2 || i.Names[1] != "docker.io/library/python:latest" || i.Platform != "linux/"+runtime.GOARCH {
		t.Errorf("%+v", i)
	}
	out, errOut, code = imageRun(t, "ls", "--state-dir", state, "-o", "json")
	var list []cachedImage
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 2 || list[0].Kind != "imported" || list[0].Size == 0 {
		t.Errorf("%d %v %s\n%s", code, err, errOut, out)
	}
	if out, _, _ := imageRun(t, "ls", "--state-dir", state); !strings.Contains(out, "r.example.org/two:1") {
		t.Errorf("%s", out)
	}
	for _, words := range [][]string{{"image", "rm", "--state-dir", state, "r.example.org/t"}, {"image", "rm", "--state-dir=" + state, "r.example.org/t"}} {
		if got := candidates(t.Context(), newApp(), words); len(got) != 1 || got[0].word != "r.example.org/two:1" {
			t.Errorf("%q is completed to %+v", words, got)
		}
	}
	if got := candidates(t.Context(), newApp(), []string{"image", "import", ""}); len(got) != 1 || got[0].word != filesWanted {
		t.Errorf("a file is completed to %+v", got)
	}
	for _, c := range []struct {
		what, out string
	}{{"python", "docker.io/library/python:latest\n"}, {"r.example.org/one:1", "r.example.org/one:1\n" + got[0].Digest + "\n"}, {got[1].Digest[7:20], "r.example.org/two:1\n" + got[1].Digest + "\n"}} {
		if out, errOut, code := imageRun(t, "rm", "--state-dir", state, c.what); code != 0 || out != c.out {
			t.Errorf("%s: %d %s\n%s", c.what, code, errOut, out)
		}
	}
	if _, errOut, code := imageRun(t, "rm", "--state-dir", state, "r.example.org/one:1"); code != exitFailure || !strings.Contains(errOut, "v6node image ls") {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestAnImportedImageIsCalledAsTheCommandLineSays(t *testing.T) {
	img := packed(t, runtime.GOARCH, "one")
	index, err := imagekit.Index(img, packed(t, "s390x", "other"))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	file := archiveFile(t, false, func(w io.Writer) error {
		return imagekit.SaveOCI(w, imagekit.Named{Names: []string{"1.0"}, What: index}, imagekit.Named{Names: []string{"r.example.org/two:1"}, What: packed(t, runtime.GOARCH, "two")})
	})
	const name = "r.example.org/algo:1"
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "--name"},
		{[]string{"--name", name}, "--only"},
		{[]string{"--name", name, "--only", "3.0"}, "1.0, r.example.org/two:1"},
		{[]string{"--name", "sif:algo", "--only", "1.0"}, "container image"},
		{[]string{"--name", "r.example.org/algo@sha256:" + strings.Repeat("0", 64), "--only", "1.0"}, whole.String()},
		{[]string{"--name", name, "--only", "1.0", "--max-size", "1"}, ""},
	} {
		state := t.TempDir()
		out, errOut, code := imageRun(t, append([]string{"import", file, "--state-dir", state}, c.args...)...)
		if code != exitFailure || out != "" || !strings.Contains(errOut, c.says) || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%q: %d %s", c.args, code, errOut)
		}
		if list, err := imported.Open(filepath.Join(state, imported.Directory)).List(); err != nil || len(list) > 0 {
			t.Errorf("%q: %v, %v", c.args, list, err)
		}
	}
	state := t.TempDir()
	out, errOut, code := imageRun(t, "import", file, "--state-dir", state, "--only", "1.0", "--name", "r.example.org/algo:1@"+whole.String())
	if code != 0 || !strings.Contains(out, whole.String()) || !strings.Contains(out, name) || !strings.Contains(out, "of this platform") {
		t.Fatalf("%d %s\n%s", code, errOut, out)
	}
	for _, text := range []string{name, "r.example.org/algo@" + whole.String()} {
		ref, err := imageref.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := imported.Open(filepath.Join(state, imported.Directory)).Find(ref); err != nil || r.Digest != whole.String() {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestASIFFileIsImportedUnderItsName(t *testing.T) {
	path, _ := smallSIF(t)
	state := t.TempDir()
	out, errOut, code := imageRun(t, "import", path, "--state-dir", state, "-o", "json")
	var got []importedImage
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || len(got) != 1 || got[0].Names[0] != "sif:small" || got[0].Kind != "sif" {
		t.Fatalf("%d %v %s\n%s", code, err, errOut, out)
	}
	if _, errOut, code := imageRun(t, "import", path, "--state-dir", state, "--name", "sif:tools/other@"+got[0].Digest); code != 0 {
		t.Errorf("%d %s", code, errOut)
	}
	if out, _, _ := imageRun(t, "ls", "--state-dir", state); !strings.Contains(out, "sif:small") || !strings.Contains(out, "sif:tools/other") {
		t.Errorf("%s", out)
	}
	for _, name := range []string{"r.example.org/a:1", "oras://r.example.org/a:1", "sif:../a", "sif:a@sha256:" + strings.Repeat("0", 64)} {
		if _, errOut, code := imageRun(t, "import", path, "--state-dir", state, "--name", name); code != exitFailure || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%s: %d %s", name, code, errOut)
		}
	}
	if out, errOut, code := imageRun(t, "rm", "--state-dir", state, "sif:tools/other"); code != 0 || out != "sif:tools/other\n" {
		t.Errorf("%d %s\n%s", code, errOut, out)
	}
}

func TestWhatCannotBeImportedIsRefusedInOneSentence(t *testing.T) {
	foreign := "arm64"
	if runtime.GOARCH == foreign {
		foreign = "amd64"
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("text ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{}, exitUsage, "FILE"},
		{[]string{"--max-size", "much", text}, exitUsage, "--max-size"},
		{[]string{filepath.Join(t.TempDir(), "none")}, exitFailure, "cannot be read"},
		{[]string{t.TempDir()}, exitFailure, "not a file"},
		{[]string{text}, exitFailure, "tar"},
		{[]string{archiveFile(t, false, func(w io.Writer) error {
			return imagekit.SaveDocker(w, imagekit.Named{Names: []string{"a:1"}, What: packed(t, foreign, "x")})
		})}, exitFailure, "linux/" + foreign},
	} {
		state := t.TempDir()
		if _, errOut, code := imageRun(t, append([]string{"import", "--state-dir", state}, c.args...)...); code != c.code || !strings.Contains(errOut, c.says) || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%q: %d %s", c.args, code, errOut)
		}
		left, err := os.ReadDir(filepath.Join(state, imported.Directory, "tmp"))
		if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
			t.Errorf("%q left %v, %v", c.args, left, err)
		}
	}
	if _, errOut, code := imageRun(t, "import", "--state-dir", filepath.Join(t.TempDir(), "none"), text); code != exitFailure || !strings.Contains(errOut, "--state-dir") {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestAnImportForAnotherUsersNodeIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory to another user")
	}
	state := t.TempDir()
	if err := os.Chown(state, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := imageRun(t, "import", "--state-dir", state, filepath.Join(state, "none")); code != exitFailure || !strings.Contains(errOut, "65534") {
		t.Errorf("%d %s", code, errOut)
	}
}

// What was imported is known without a registry, also to who asks about policies.
func TestPolicyTestKnowsImportedImages(t *testing.T) {
	state := t.TempDir()
	file := archiveFile(t, false, func(w io.Writer) error {
		return imagekit.SaveOCI(w, imagekit.Named{Names: []string{"ghcr.io/org/average:1"}, What: packed(t, runtime.GOARCH, "one")})
	})
	if _, errOut, code := imageRun(t, "import", file, "--state-dir", state); code != 0 {
		t.Fatal(errOut)
	}
	config := writeConfig(t, somePolicies+"\nstate_dir: "+state+"\n")
	out, errOut, code := v6node(t, t.Context(), "policy", "test", "--config", config, "-o", "json", "--offline", "--image", "ghcr.io/org/average:1", "--organization", "6", "--function", "central")
	var r policyReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Decision != wouldAllow || r.Digest == "" {
		t.Errorf("%d %v %s\n%s", code, err, errOut, out)
	}
}
