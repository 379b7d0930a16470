package cni

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDropInsInContribAreThoseThatAreInstalled(t *testing.T) {
	for file, want := range map[string][]byte{
		"crio.conf.d/50-v6node.conf": CRIODropIn(DefaultBinDir), "registries.conf.d/50-v6node.conf": RegistriesDropIn(),
	} {
		have, err := os.ReadFile(filepath.Join("..", "contrib", "crio", file))
		if err != nil || string(have) != string(want) {
			t.Errorf("%s (%v) is\n%s\nand should be\n%s", file, err, have, want)
		}
	}
}

// crioLayout is the layout of a CRI-O in directories of its own.
func crioLayout(t *testing.T) Layout {
	t.Helper()
	dir := t.TempDir()
	return Layout{ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin"),
		CRIO: &CRIO{Dir: filepath.Join(dir, "crio.conf.d"), RegistriesDir: filepath.Join(dir, "registries.conf.d")}}
}

func TestCRIOGetsItsDropInsAndLosesThemAgain(t *testing.T) {
	l := crioLayout(t)
	before, err := Inspect(l)
	if err != nil || before.Effective || !strings.Contains(strings.Join(before.Problems, "\n"), "restart CRI-O") {
		t.Fatalf("before: %+v, %v", before, err)
	}
	for i := range 2 {
		r, err := Install(l, self(t))
		if err != nil || r.Changed != (i == 0) || !r.Effective || len(r.DropIns) != 2 || len(r.Problems) != 0 {
			t.Fatalf("install %d: %+v, %v", i, r, err)
		}
	}
	own, err := os.ReadFile(filepath.Join(l.CRIO.Dir, DropInName))
	if err != nil || !strings.Contains(string(own), `"`+l.BinDir+`"`) {
		t.Errorf("the plugin directory is not in the drop-in file (%v):\n%s", err, own)
	}
	// Of another release.
	if err := os.WriteFile(filepath.Join(l.CRIO.RegistriesDir, DropInName), []byte(DropInMark+"\n# old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Install(l, self(t))
	if err != nil || !r.Changed || r.DropIns[1].State != Current {
		t.Errorf("renewal: %+v, %v", r, err)
	}
	if info, err := os.Stat(r.DropIns[1].Path); err != nil || info.Mode().Perm() != confMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Uninstall(l); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(l.BinDir), "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestADropInOfSomebodyElseIsLeftAlone(t *testing.T) {
	l := crioLayout(t)
	path := filepath.Join(l.CRIO.Dir, DropInName)
	if err := os.Mkdir(l.CRIO.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(l, self(t)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("install: %v", err)
	}
	if _, err := Uninstall(l); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "# mine\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestCRIOMayHaveANetworkThatSortsEarlier(t *testing.T) {
	l := crioLayout(t)
	if err := os.Mkdir(l.ConfDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.ConfDir, "00-a.conflist"), []byte(`{"name":"other","plugins":[{"type":"bridge"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Install(l, self(t), Force())
	if err != nil || !r.Effective {
		t.Errorf("%+v, %v", r, err)
	}
}
