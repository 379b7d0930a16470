//go:build integration

package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

// Databases that a run may change are there only where the configuration says so,
// and have a size.
func writableScenarios() []scenario {
	return []scenario{
		{"a run changes its own copy of a database, and nobody else's", ownCopy},
		{"a run changes a folder that is for that, up to its size", writableFolder},
	}
}

// data makes a directory for databases, which the node's user owns.
func (w *world) data(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp(w.dir, "data-")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if text == "" {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if w.user != nil {
		if err := w.user.own(dir); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func ownCopy(t *testing.T, w *world) {
	dir := w.data(t, map[string]string{"own.csv": patients})
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"databases": []map[string]any{{"label": "own", "uri": filepath.Join(dir, "own.csv"), "type": "csv", "mount_mode": "copy"}},
		"limits":    map[string]any{"output_size": "2m"},
	}})
	const inside = "/mnt/data/own.csv"
	completed[any](t, n.call(t, "hoard", kwargs{"path": inside, "bytes": 1 << 20, "seconds": 0}, databases("own")))
	if b, err := os.ReadFile(filepath.Join(dir, "own.csv")); err != nil || !bytes.Equal(b, []byte(patients)) {
		t.Errorf("the original is %q now (%v)", b, err)
	}
	got := completed[sight](t, n.call(t, "probe", nil, databases("own")))
	if want := (seenFile{inside, int64(len(patients))}); !slices.Contains(got.Files, want) {
		t.Errorf("the next run sees %+v, without the original's %+v", got.Files, want)
	}
	n.failed(t, n.call(t, "hoard", kwargs{"path": inside, "bytes": 16 << 20, "seconds": 3600}, databases("own")),
		standin.StatusCrashed, "took more than 2 MiB on the disk (limits.output_size)")
	if left, err := filepath.Glob(filepath.Join(n.files(), "runs", "*", "copies")); err != nil || len(left) > 0 {
		t.Errorf("copies are left: %q (%v)", left, err)
	}
}

func writableFolder(t *testing.T, w *world) {
	dir := w.data(t, map[string]string{"models": "", "records": ""})
	models := filepath.Join(dir, "models")
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": []map[string]any{
		{"label": "models", "uri": models, "type": "folder", "mount_mode": "rw", "size_limit": "4m"},
		{"label": "records", "uri": filepath.Join(dir, "records"), "type": "folder", "mount_mode": "ro"},
	}}})
	completed[any](t, n.call(t, "hoard", kwargs{"path": "/mnt/models/first", "bytes": 1 << 20, "seconds": 0}, databases("models")))
	if info, err := os.Stat(filepath.Join(models, "first")); err != nil || info.Size() != 1<<20 {
		t.Errorf("what the run wrote did not stay: %v, %v", info, err)
	}
	got := completed[sight](t, n.call(t, "probe", kwargs{"write": []string{"/mnt/models", "/mnt/records"}}, databases("models", "records")))
	works(t, "write to", got.Writable, "/mnt/models")
	fails(t, "write to", got.Writable, "/mnt/records")

	n.failed(t, n.call(t, "hoard", kwargs{"path": "/mnt/models/second", "bytes": 16 << 20, "seconds": 3600}, databases("models")),
		standin.StatusCrashed, `the folder of the database "models"`, "took more than 4 MiB on the disk (databases[].size_limit)")
	n.failed(t, n.call(t, "noop", nil, databases("models")), standin.StatusStartFailed, "has reached its size_limit")
	if err := os.Remove(filepath.Join(models, "second")); err != nil {
		t.Fatal(err)
	}
	completed[any](t, n.call(t, "noop", nil, databases("models")))
}
