package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// measured is a run's workspace without mounts.
func measured(t *testing.T) *Run {
	t.Helper()
	w := Root{Dir: t.TempDir()}.Open(7)
	for _, dir := range []string{w.data(), w.root.job(3)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func put(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAnAlgorithmWritesIsMeasured(t *testing.T) {
	w := measured(t)
	put(t, filepath.Join(w.data(), "output"), 1<<20)
	put(t, filepath.Join(w.data(), "empty"), 0)
	// A second name is no second file, and a link leads nowhere.
	if err := errors.Join(os.Link(filepath.Join(w.data(), "output"), filepath.Join(w.data(), "again")), os.Symlink("/", filepath.Join(w.data(), "root"))); err != nil {
		t.Fatal(err)
	}
	if got, err := w.OutputUse(0); err != nil || got != 1<<20+2*leastEntry {
		t.Errorf("output %d, %v", got, err)
	}
	deep := filepath.Join(w.root.job(3), "a", "b")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(deep, "c"), 64<<10)
	if got, err := w.ScratchUse(3, 0); err != nil || got != 64<<10+2*leastEntry {
		t.Errorf("scratch %d, %v", got, err)
	}
	if got, err := w.ScratchUse(4, 0); err != nil || got != 0 {
		t.Errorf("scratch of a job without one: %d, %v", got, err)
	}
	if got, err := w.FreeSpace(); err != nil || got <= 0 {
		t.Errorf("free space %d, %v", got, err)
	}
}

func TestMeasuringEndsAtTheLimit(t *testing.T) {
	w := measured(t)
	for _, name := range strings.Split("abcdefghijklmnopqrst", "") {
		put(t, filepath.Join(w.data(), name), 0)
	}
	if got, err := w.OutputUse(5 * leastEntry); err != nil || got != 6*leastEntry {
		t.Errorf("%d, %v", got, err)
	}
}

func TestDirectoriesWithoutEndAreAnError(t *testing.T) {
	w := measured(t)
	if err := os.MkdirAll(filepath.Join(w.data(), strings.Repeat("d/", maxDepth+2)), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := w.OutputUse(0); !errors.Is(err, ErrTooDeep) {
		t.Errorf("%v", err)
	}
}

func TestDeletedFilesCountWhileTheyAreHeld(t *testing.T) {
	w := measured(t)
	f, err := os.Create(filepath.Join(w.data(), "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	before, err := w.HeldUse([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if got, err := w.HeldUse([]int{os.Getpid(), 1 << 30}); err != nil || got-before != 1<<20 {
		t.Errorf("%d more, %v", got-before, err)
	}
}
