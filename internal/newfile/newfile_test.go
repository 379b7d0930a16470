package newfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAFileIsMadeOnceForItsOwner(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "etc", "v6node", "node.yaml")
	if err := Write(path, []byte("one"), false); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
	if err := Write(path, []byte("two"), false); !errors.Is(err, fs.ErrExist) || content(t, path) != "one" {
		t.Errorf("written over: %v", err)
	}
	if err := Write(path, []byte("two"), true); err != nil || content(t, path) != "two" {
		t.Errorf("with leave: %v", err)
	}
	if err := Write(filepath.Dir(path), nil, true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory was replaced: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestALinkIsNeverFollowed(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, []byte("mine"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("x"), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written through a link: %v", err)
	}
	if err := Write(link, []byte("x"), true); err != nil || content(t, target) != "mine" || content(t, link) != "x" {
		t.Errorf("%v, the target has %q", err, content(t, target))
	}
}

func TestOfTwoThatWriteAtOnceOneWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.yaml")
	var wins, losses int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := Write(path, []byte("whole"), false)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				wins++
			case errors.Is(err, fs.ErrExist):
				losses++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if wins != 1 || losses != 7 || content(t, path) != "whole" {
		t.Errorf("%d wrote, %d were told that it exists", wins, losses)
	}
}
