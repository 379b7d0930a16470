package reference

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestReferencesAreReadAndWrittenBack(t *testing.T) {
	for text, want := range map[string]Reference{
		"sif:algorithm":                                {Scheme: SIF, Name: "algorithm"},
		"sif:R-4.3_x86.sif":                            {Scheme: SIF, Name: "R-4.3_x86.sif"},
		"sif:group/tools/c++":                          {Scheme: SIF, Name: "group/tools/c++"},
		"sif:a@" + someDigest:                          {Scheme: SIF, Name: "a", Digest: someDigest},
		"oras://registry.example.org/g/i:1.0":          {Scheme: ORAS, Registry: "registry.example.org", Repository: "g/i", Tag: "1.0"},
		"oras://localhost:5000/i@" + someDigest:        {Scheme: ORAS, Registry: "localhost:5000", Repository: "i", Digest: someDigest},
		"oras://r.example.org/g/i:1.0@" + someDigest:   {Scheme: ORAS, Registry: "r.example.org", Repository: "g/i", Tag: "1.0", Digest: someDigest},
		"oras://127.0.0.1:5000/a/b/c:v1@" + someDigest: {Scheme: ORAS, Registry: "127.0.0.1:5000", Repository: "a/b/c", Tag: "v1", Digest: someDigest},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if got.String() != text || !Is(text) {
			t.Errorf("%s is written back as %s", text, got)
		}
	}
	r, err := Parse("oras://r.example.org/g/i")
	if err != nil || r.Tag != "latest" {
		t.Errorf("%+v, %v", r, err)
	}
	if got := r.Pin(someDigest).String(); got != "oras://r.example.org/g/i@"+someDigest {
		t.Error(got)
	}
}

func TestWhatIsNoReferenceIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "sif:", "oras://", "alpine", "docker://alpine", "sif", "SIF:a", "oras:registry.example.org/a",
		"sif:/etc/passwd", "sif:../a", "sif:a/../b", "sif:a//b", "sif:a/", "sif:/a", "sif:.hidden", "sif:a/.b", "sif:-o", "sif:+a",
		"sif:a b", "sif:a\x00b", "sif:a\nb", "sif:a\\b", "sif:ä", "sif:a:b", "sif:~a", "sif:$a", "sif:a*",
		"sif:a@", "sif:a@sha256:", "sif:a@sha512:" + strings.Repeat("a", 128), "sif:a@" + strings.ToUpper(someDigest), "sif:a@" + someDigest + "@" + someDigest,
		"sif:@" + someDigest, "sif:a/b/c/d/e/f/g/h/i", "sif:" + strings.Repeat("a", 600),
		"oras://image", "oras://group/image:1", "oras://r.example.org/", "oras://r.example.org/UPPER:1", "oras://r.example.org/a:b:c",
		"oras://user@r.example.org/a", "oras://r.example.org/a@" + someDigest + "x", "oras://r.example.org/../a:1",
	} {
		if r, err := Parse(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"sif:a/b@" + someDigest, "oras://r.example.org/g/i:1.0@" + someDigest, "sif:../a", "oras://a.b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, but %q is %+v, %v", text, r, r, again, err)
		}
		if r.Scheme == SIF && !filepath.IsLocal(r.Name) {
			t.Errorf("%q leads out", r.Name)
		}
	})
}

// files makes files with their own names as content.
func files(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(p), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func content(t *testing.T, d Directories, name string) (string, error) {
	t.Helper()
	f, err := d.Open(Reference{Scheme: SIF, Name: name})
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

func TestTheFirstDirectoryWithTheNameWins(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	files(t, a, "both.sif", "sub/x.sif", "plain")
	files(t, b, "both", "both.sif", "only.sif", "plain.sif")
	d := Directories{a, filepath.Join(a, "missing"), b}
	for name, want := range map[string]string{
		"both": filepath.Join(a, "both.sif"), "both.sif": filepath.Join(a, "both.sif"), "only": filepath.Join(b, "only.sif"),
		"sub/x": filepath.Join(a, "sub/x.sif"), "plain": filepath.Join(a, "plain"), "plain.sif": filepath.Join(b, "plain.sif"),
	} {
		if got, err := content(t, d, name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"none", "sub", "plain/x"} {
		if got, err := content(t, d, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := content(t, nil, "both"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no directories: %v", err)
	}
}

func TestNothingOutsideOfTheDirectoriesIsOpened(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	files(t, outside, "secret.sif")
	files(t, dir, "real.sif", "sub/other.sif")
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("real.sif", "inside.sif")
	link("../real.sif", "sub/up.sif")
	link(filepath.Join(outside, "secret.sif"), "absolute.sif")
	link("../"+filepath.Base(outside)+"/secret.sif", "relative.sif")
	link(outside, "directory")
	link("loop.sif", "loop.sif")
	link("/proc/self/exe", "magic.sif")
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.sif"), 0o666); err != nil {
		t.Fatal(err)
	}
	d := Directories{dir}
	for _, name := range []string{"inside", "sub/up"} {
		if got, err := content(t, d, name); err != nil || got != filepath.Join(dir, "real.sif") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"absolute", "relative", "directory/secret", "loop", "magic", "fifo"} {
		if got, err := content(t, d, name); !errors.Is(err, ErrOutside) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Even a name that Parse would never let through.
	for _, name := range []string{"../" + filepath.Base(outside) + "/secret.sif", outside + "/secret.sif", "sub/../../x", ""} {
		if got, err := content(t, d, name); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}
