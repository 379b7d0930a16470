package workspace

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestARunMayChangeItsOwnCopyOfAFileWhichGoesWithIt(t *testing.T) {
	root, spec := base(t)
	original := spec.Databases[0].URI
	spec.Databases[0].CopyPlace, spec.Databases[0].Private = true, true
	want, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(w.Mounts, func(m Mount) bool { return m.Container == "/mnt/data/"+filepath.Base(original) })
	if i < 0 || w.Mounts[i].ReadOnly || w.Mounts[i].Host == original {
		t.Fatalf("mounts %+v", w.Mounts)
	}
	mine := w.Mounts[i].Host
	if got, err := os.ReadFile(mine); string(got) != string(want) || err != nil {
		t.Errorf("the copy is %q (%v)", got, err)
	}
	before, err := w.OutputUse(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, make([]byte, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	if after, err := w.OutputUse(0); err != nil || after < before+1<<20-leastEntry {
		t.Errorf("what the copy has grown by does not count: %d, then %d (%v)", before, after, err)
	}
	if got, err := os.ReadFile(original); string(got) != string(want) || err != nil {
		t.Errorf("the original is %q now (%v)", got, err)
	}
	if folders, err := w.Folders(); len(folders) != 0 || err != nil {
		t.Errorf("folders %v (%v)", folders, err)
	}
	// Who may not read the original may not read a copy.
	if err := os.Chmod(original, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.CheckAccess(4711); !errors.Is(err, ErrDatabase) || !strings.Contains(err.Error(), original) {
		t.Errorf("another user: %v", err)
	}
	if err := w.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy is left: %v", err)
	}
}

func TestACopyThatIsGivenUpLeavesNothing(t *testing.T) {
	root, spec := base(t)
	spec.Databases[0].Private = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if w, err := root.Prepare(ctx, spec); err == nil {
		// A file system that shares blocks was faster.
		if err := w.Remove(); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if ids, err := root.RunIDs(); len(ids) != 0 || err != nil {
		t.Errorf("runs %v are left (%v)", ids, err)
	}
}

func TestAWritableFolderHasASize(t *testing.T) {
	root, spec := base(t)
	folder := t.TempDir()
	spec.Databases = append(spec.Databases, Database{Label: "models", Type: "folder", URI: folder, Writable: true, SizeLimit: 1 << 20})
	spec.Requested = []Request{{Label: "default"}, {Label: "models"}}
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range w.Mounts {
		if m.Host == folder && (m.ReadOnly || m.Container != "/mnt/models") || m.Container == "/mnt/default.csv" && !m.ReadOnly {
			t.Errorf("mount %+v", m)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "model"), make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	// As a node finds it that was started again.
	folders, err := root.Open(spec.RunID).Folders()
	if err != nil || len(folders) != 1 || folders[0] != (Folder{Label: "models", Path: folder, Limit: 1 << 20}) {
		t.Fatalf("folders %+v (%v)", folders, err)
	}
	if n, err := folders[0].Use(); err != nil || n < 512<<10 || n > 1<<20 {
		t.Errorf("it has %d bytes (%v)", n, err)
	}
	if err := os.WriteFile(filepath.Join(folder, "more"), make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Prepare(t.Context(), spec); !errors.Is(err, ErrDatabase) || !strings.Contains(err.Error(), "size_limit") {
		t.Errorf("a run begins in a full folder: %v", err)
	}
	if _, err := os.Stat(filepath.Join(folder, "model")); err != nil {
		t.Errorf("what is in the folder goes with a run: %v", err)
	}
}
