//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

func databaseFaults() []scenario {
	return []scenario{
		{"a task that names a database which the node lacks", foreignDatabase},
		{"databases that cannot be read", unreadableDatabases},
	}
}

func foreignDatabase(t *testing.T, w *world) {
	alpha := w.alpha(t)
	done := alpha.call(t, "noop", nil, databases("default", "elsewhere"))
	alpha.failed(t, done, standin.StatusStartFailed, `"elsewhere"`, "not offered by this node", "default")
}

// strangerID is a user and group that owns nothing on any machine.
const strangerID = 61234

// unreadableDatabases proves that files which the algorithm could not open are
// found before it starts, and that those it can open are left to it.
func unreadableDatabases(t *testing.T, w *world) {
	dir := filepath.Join(w.dir, "unreadable")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := func(name string, owner int, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(patients), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(folder, strangerID, strangerID); err != nil {
		t.Fatal(err)
	}
	var config []map[string]any
	for label, uri := range map[string]string{
		"missing":  filepath.Join(dir, "missing.csv"),
		"owned":    file("owned.csv", strangerID, 0o600),
		"roots":    file("roots.csv", 0, 0o600),
		"readable": file("readable.csv", strangerID, 0o604),
		"folder":   folder,
	} {
		kind := "csv"
		if uri == folder {
			kind = "folder"
		}
		config = append(config, map[string]any{"label": label, "uri": uri, "type": kind})
	}
	n := w.start(t, nodeOptions{Extra: map[string]any{"databases": config}})
	asStranger, err := w.lab.Push("faults/stranger", w.programs.Algorithm("average"), func(s *imagekit.Spec) { s.User = "61234" })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		image imagekit.Ref
		label string
		says  []string // nil: the algorithm reads it
	}{
		{w.average, "missing", []string{"does not exist", "correct its uri"}},
		{w.average, "owned", []string{"cannot be read", "user 0", "permissions"}},
		{w.average, "folder", []string{"cannot be read", "user 0", "permissions"}},
		{w.average, "roots", nil},
		{w.average, "readable", nil},
		{asStranger, "owned", nil},
		{asStranger, "roots", []string{"cannot be read", "user 61234", "permissions"}},
	} {
		done := n.call(t, "partial", kwargs{"column": "age"}, image(c.image.Tag), databases(c.label))
		if c.says != nil {
			n.failed(t, done, standin.StatusStartFailed, append(c.says, `"`+c.label+`"`, filepath.Join(dir, c.label))...)
			if strings.Count(done.Text, "\n") > 0 {
				t.Errorf("the algorithm was started: %s", done.Text)
			}
			continue
		}
		if got := completed[struct{ Sum, Count float64 }](t, done); got.Sum != 120 || got.Count != 3 {
			t.Errorf("database %q: the algorithm read %+v", c.label, got)
		}
	}
}
