package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/proxy/e2e"
)

func newKey(t *testing.T) *e2e.PrivateKey {
	t.Helper()
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func write(t *testing.T, name, text string, mode fs.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chmod(file, mode)); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAKeyIsCreatedOnceForItsOwner(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	key := newKey(t)
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := Create(file, key, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := Create(file, newKey(t), nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(t.TempDir(), "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	if err := Create(link, key, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written through a link: %v", err)
	}
	if got, err := Read(file, ""); err != nil || !got.Public().Equal(key.Public()) {
		t.Errorf("read again: %v", err)
	}
}

func TestPassphrasesComeFromFileOrEnvironment(t *testing.T) {
	key := newKey(t)
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := Create(file, key, []byte("correct horse")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "ENCRYPTED PRIVATE KEY") {
		t.Fatalf("it is not protected: %v", err)
	}
	for _, c := range []struct {
		name, file, env string
		want            error
	}{
		{"none", "", "", e2e.ErrPassphrase},
		{"the file", write(t, "p", "correct horse\n", 0o600), "", nil},
		{"the environment", "", "correct horse", nil},
		{"the file before the environment", write(t, "p", "wrong", 0o600), "correct horse", e2e.ErrWrongPassphrase},
		{"a wrong one", "", "correct", e2e.ErrWrongPassphrase},
		{"a file for all", write(t, "p", "correct horse", 0o644), "", ErrPermissions},
		{"a file that is not there", filepath.Join(t.TempDir(), "x"), "", fs.ErrNotExist},
	} {
		t.Setenv(PassphraseVariable, c.env)
		got, err := Read(file, c.file)
		if !errors.Is(err, c.want) || c.want == nil && (err != nil || !got.Public().Equal(key.Public())) || err != nil && strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, text := range []string{"", "\n", "two\nlines\n"} {
		if _, err := Passphrase(write(t, "p", text, 0o600)); err == nil {
			t.Errorf("%q is a passphrase", text)
		}
	}
}

func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	text := string(newKey(t).PEM())
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o440: true, 0o644: false, 0o604: false, 0o660: false, 0o602: false, 0o601: false} {
		_, err := Read(write(t, "k", text, mode), "")
		if ok != (err == nil) || !ok && (!errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), "chmod 600")) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(fifo, ""); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a fifo: %v", err)
	}
	if _, err := Read(write(t, "k", strings.Repeat("x", maxKey+1), 0o600), ""); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("a long file: %v", err)
	}
}
