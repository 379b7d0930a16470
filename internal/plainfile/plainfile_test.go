package plainfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, "/dev/zero", filepath.Join(dir, "none")} {
		if b, err := Read(path, 10); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if b, err := Read(file, 4); err != nil || string(b) != "text" {
		t.Errorf("a file as long as it may be: %q, %v", b, err)
	}
	if _, err := Read(file, 3); err == nil || !strings.Contains(err.Error(), "longer than 3 bytes") {
		t.Errorf("a file that is longer: %v", err)
	}
}
