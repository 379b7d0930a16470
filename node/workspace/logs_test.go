package workspace

import (
	"os"
	"path/filepath"
	"testing"
)

func TestALogOutlivesItsRun(t *testing.T) {
	r := Root{Dir: t.TempDir()}
	w := r.Open(7)
	if err := w.KeepLog(); err != nil {
		t.Errorf("a run without a log: %v", err)
	}
	for _, text := range []string{"first\n", "second\n"} { // the run was prepared twice
		if err := os.MkdirAll(w.LogDir(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := w.KeepLog(); err != nil {
			t.Errorf("an empty log: %v", err)
		}
		if err := os.WriteFile(w.LogFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := w.KeepLog(); err != nil {
				t.Fatal(err)
			}
			if err := w.Remove(); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(w.KeptLogFile()); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := os.Mkdir(filepath.Join(r.logs(), "not ours"), 0o700); err != nil {
		t.Fatal(err)
	}
	logs, err := r.KeptLogs()
	if err != nil || len(logs) != 1 || logs[0].RunID != 7 || logs[0].Size != int64(len("second\n")) || logs[0].Since.IsZero() {
		t.Errorf("%+v, %v", logs, err)
	}
	for range 2 {
		if err := r.RemoveLog(7); err != nil {
			t.Error(err)
		}
	}
	if logs, err := r.KeptLogs(); err != nil || len(logs) != 0 {
		t.Errorf("%+v, %v", logs, err)
	}
}
