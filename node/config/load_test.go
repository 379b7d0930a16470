package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// write makes a file with exactly this mode.
func write(t *testing.T, path, text string, mode fs.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFilesWithSecretsThatOthersReadAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "key"), "k\n", 0o600)
	withFile := "server_url: https://x.org\napi_key_file: key\n"
	for _, c := range []struct {
		name, text string
		mode       fs.FileMode
		want       string
	}{
		{"private", minimal, 0o600, ""},
		{"group reads the key", minimal, 0o640, "chmod 600"},
		{"all read the key", minimal, 0o604, "chmod 600"},
		{"nothing secret in it", withFile, 0o644, ""},
		{"others write", withFile, 0o666, "chmod go-w"},
		{"password of a database", withFile + "databases: [{label: a, uri: /a, type: csv, env: {p: x}}]", 0o644, "chmod 600"},
	} {
		path := write(t, filepath.Join(dir, "site.yaml"), c.text, c.mode)
		cfg, warnings, err := Load(path)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.want == "" && len(warnings) > 0 || c.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].Message, c.want)) {
			t.Errorf("%s: %v, want %q", c.name, warnings, c.want)
		}
		if cfg.APIKey.Reveal() != "k" {
			t.Errorf("%s: the key is lost", c.name)
		}
	}
}

func TestTheAPIKeyMayComeFromAFile(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "site.yaml"), "server_url: https://x.org\napi_key_file: key\n", 0o600)
	if _, _, err := Load(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(dir, "key")) {
		t.Errorf("missing: %v", err)
	}
	for _, bad := range []string{"", "\n", "two words", "two\nlines", strings.Repeat("k", maxKeyFile+1)} {
		write(t, filepath.Join(dir, "key"), bad, 0o600)
		if _, _, err := Load(path); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "two") {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	write(t, filepath.Join(dir, "key"), "the-key\n", 0o644)
	c, warnings, err := Load(path)
	if err != nil || c.APIKey.Reveal() != "the-key" || len(warnings) != 1 {
		t.Errorf("%v, %v, %v", c, warnings, err)
	}
}

func TestOnlyFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, dir, filepath.Join(dir, "missing.yaml"), "/dev/zero"} {
		if _, _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, _, err := Load(write(t, filepath.Join(dir, "long.yaml"), strings.Repeat("#", maxFile+1), 0o600)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too long: %v", err)
	}
}
