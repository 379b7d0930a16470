package imageref

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

func TestEverySpellingOfAnImageHasOneCanonicalForm(t *testing.T) {
	for in, want := range map[string]string{
		"python":                                "docker.io/library/python:latest",
		"python:3.12":                           "docker.io/library/python:3.12",
		"library/python":                        "docker.io/library/python:latest",
		"docker.io/python":                      "docker.io/library/python:latest",
		"Docker.IO/library/python":              "docker.io/library/python:latest",
		"index.docker.io/python":                "docker.io/library/python:latest",
		"INDEX.docker.io/python:3":              "docker.io/library/python:3",
		"org/algo":                              "docker.io/org/algo:latest",
		"GHCR.io/org/algo:v1":                   "ghcr.io/org/algo:v1",
		"localhost/algo":                        "localhost/algo:latest",
		"LOCALHOST/algo":                        "localhost/algo:latest",
		"127.0.0.1:5000/algo":                   "127.0.0.1:5000/algo:latest",
		"[::1]:5000/algo:x":                     "[::1]:5000/algo:x",
		"ghcr.io/org/algo@" + digestA:           "ghcr.io/org/algo@" + digestA,
		"ghcr.io/org/algo:v1@" + digestA:        "ghcr.io/org/algo@" + digestA,
		"ghcr.io:443/org/algo":                  "ghcr.io:443/org/algo:latest",
		"docker.io/ghcr.io/org/algo":            "docker.io/ghcr.io/org/algo:latest",
		"harbor2.vantage6.ai/algorithms/basics": "harbor2.vantage6.ai/algorithms/basics:latest",
		"sif":                                   "docker.io/library/sif:latest",
		"docker.io/library/sif:1.0":             "docker.io/library/sif:1.0",
		"sif:1.0":                               "sif:1.0",
		"sif:tools/Algo_1.sif":                  "sif:tools/Algo_1.sif",
		"sif:algo@" + digestA:                   "sif:algo@" + digestA,
		"oras://ghcr.io/org/algo":               "oras://ghcr.io/org/algo:latest",
		"oras://GHCR.io/org/algo:v1":            "oras://ghcr.io/org/algo:v1",
		"oras://ghcr.io/org/algo:v1@" + digestA: "oras://ghcr.io/org/algo@" + digestA,
		"oras://127.0.0.1:5000/algo":            "oras://127.0.0.1:5000/algo:latest",
		"oras://docker.io/org/algo:v1":          "oras://docker.io/org/algo:v1",
		"oras://index.docker.io/org/algo:v1":    "oras://docker.io/org/algo:v1",
	} {
		r, err := Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
			continue
		}
		if r.String() != want {
			t.Errorf("Parse(%q) = %s, want %s", in, r, want)
		}
	}
}

func TestWhatCouldBeReadInTwoWaysIsRefused(t *testing.T) {
	for _, in := range []string{
		"", " ", "python ", " python", "python:", "python@", "python:3\n", "ghcr.io/org/algo\n",
		"FOO/bar", "ghcr.io/Org/algo", "ghcr.io//algo", "ghcr.io/org/../algo", "ghcr.io/org/algo/",
		"https://ghcr.io/org/algo", "user@ghcr.io/org/algo", "ghcr.io/org/algo:v1:v2",
		"ghcr.io/org/algo@sha256:abc", "ghcr.io/org/algo@" + digestA + "@" + digestB,
		"ghcr.io/org/algo@md5:" + strings.Repeat("a", 32),
		"ghcr.io/org/algo@SHA256:" + strings.Repeat("a", 64),
		"ghcr.io/org/algo@sha256:" + strings.Repeat("A", 64),
		"ghcr.io/org/algo@sha512:" + strings.Repeat("a", 128),
		"sif:", "sif:/etc/passwd", "sif:../x", "sif:a/../b", "sif:a//b", "sif:.hidden", "sif:-x", "sif:a@sha256:1", "sif:a:b", "SIF:a", "sif://a/b",
		"oras:", "oras://", "oras://org/algo", "oras:/ghcr.io/org/algo", "oras://ghcr.io", "oras://ghcr.io/Org/algo", "ORAS://ghcr.io/org/algo", "oras://ghcr.io/../x",
		strings.Repeat("a", 64), strings.Repeat("a", 500), "ghcr.io?x/org", "ghcr.io#x/org", "gһcr.io/org/algo",
	} {
		if r, err := Parse(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("Parse(%q) = %v, %v, want ErrInvalid", in, r, err)
		}
	}
}

func TestShortSpellingsNeverLookLikeAnotherRegistry(t *testing.T) {
	for in, want := range map[string][]string{
		"python":                     {"docker.io/library/python", "library/python", "python", "docker.io/python"},
		"org/algo":                   {"docker.io/org/algo", "org/algo"},
		"ghcr.io/org/algo":           {"ghcr.io/org/algo"},
		"docker.io/ghcr.io/org/algo": {"docker.io/ghcr.io/org/algo"},
		"docker.io/localhost/algo":   {"docker.io/localhost/algo"},
	} {
		r, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Spellings(); !slices.Equal(got, want) {
			t.Errorf("%s is spelled %q, want %q", in, got, want)
		}
	}
}

func FuzzParseIsStable(f *testing.F) {
	for _, s := range []string{"python", "GHCR.io/org/algo:v1", "[::1]:5000/x@" + digestA, "FOO/bar", "docker.io/localhost/x:t@" + digestB} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again.String() != r.String() {
			t.Fatalf("%q became %q, which became %q (%v)", s, r, again, err)
		}
		for _, name := range r.Spellings() {
			if n, err := Parse(name); err != nil || n.Name() != r.Name() {
				t.Fatalf("%q is spelled %q, which means %q (%v)", s, name, n.Name(), err)
			}
		}
	})
}

func TestSchemesNeverShareAName(t *testing.T) {
	for _, in := range []string{"sif", "docker.io/library/sif:1.0", "index.docker.io/sif", "docker.io/sif:x", "oras", "ghcr.io/org/sif:1.0"} {
		r, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if r.Scheme != Container {
			t.Errorf("Parse(%q) has the scheme %q", in, r.Scheme)
		}
		for _, s := range r.Spellings() {
			if again, err := Parse(s + ":1.0"); err != nil || again.Name() != r.Name() || again.Scheme != Container {
				t.Errorf("%s is spelled %q, which with a tag is read as %v (%v)", in, s, again, err)
			}
		}
	}
	for _, in := range []string{"sif:docker.io/library/python", "oras://docker.io/library/python"} {
		r, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Spellings(); len(got) != 1 || got[0] != in || r.Scheme == Container {
			t.Errorf("%s: %q, %+v", in, got, r)
		}
	}
	if r, err := Parse("oras://ghcr.io/org/algo"); err != nil || r.Tag != "" || r.Repository() != "ghcr.io/org/algo" || r.Pin(digestA) != "oras://ghcr.io/org/algo@"+digestA {
		t.Errorf("%+v, %v", r, err)
	}
}
