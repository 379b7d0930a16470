package embedded

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRegistriesOfSeveralDirectoriesAreInOne(t *testing.T) {
	dir := t.TempDir()
	own, machine, into := filepath.Join(dir, "own"), filepath.Join(dir, "machine"), filepath.Join(dir, "into")
	write := func(dir, registry, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, registry), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, registry, "hosts.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(into, 0o700); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]string) {
		t.Helper()
		if err := linkRegistries(into, own, machine, filepath.Join(dir, "missing")); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(into)
		if err != nil || len(entries) != len(want) {
			t.Errorf("%d entries, %v; want %d", len(entries), err, len(want))
		}
		for registry, text := range want {
			if b, err := os.ReadFile(filepath.Join(into, registry, "hosts.toml")); err != nil || string(b) != text {
				t.Errorf("%s: %q, %v; want %q", registry, b, err, text)
			}
		}
	}
	check(nil)
	write(own, "docker.io", "own")
	write(machine, "docker.io", "machine")
	write(machine, "ghcr.io", "machine")
	check(map[string]string{"docker.io": "own", "ghcr.io": "machine"})
	check(map[string]string{"docker.io": "own", "ghcr.io": "machine"})
	if err := os.RemoveAll(filepath.Join(own, "docker.io")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(machine, "ghcr.io")); err != nil {
		t.Fatal(err)
	}
	write(machine, "quay.io", "new")
	check(map[string]string{"docker.io": "machine", "quay.io": "new"})
}
