package workspace

import (
	"encoding/base32"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/node/payload"
)

func decode(t testing.TB, v string) string {
	t.Helper()
	b, err := base32.StdEncoding.DecodeString(strings.ReplaceAll(v, "!", "="))
	if err != nil {
		t.Fatalf("%q is not encoded: %v", v, err)
	}
	return string(b)
}

func lookup(t testing.TB, env []Variable, name string) string {
	t.Helper()
	i := slices.IndexFunc(env, func(v Variable) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("%s is not set", name)
	}
	return env[i].Value
}

// input writes a text as a run's input.
func input(text string) func(*os.File) (*payload.Object, error) {
	return func(f *os.File) (*payload.Object, error) {
		var scan payload.Scanner
		if _, err := io.WriteString(io.MultiWriter(f, &scan), text); err != nil {
			return nil, err
		}
		return scan.Close()
	}
}

func base(t testing.TB) (Root, *Spec) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a workspace mounts a tmpfs, which needs root")
	}
	dir := t.TempDir()
	csv := filepath.Join(dir, "patients.csv")
	if err := os.WriteFile(csv, []byte("age\n40\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := Root{Dir: filepath.Join(dir, "state")}
	spec := &Spec{
		RunID: 5, TaskID: 3, JobID: 2, NodeID: 6, CollaborationID: 1,
		Input: input(`{"method":"partial","kwargs":{"column":"age"}}`),
		Databases: []Database{
			{Label: "default", Type: "csv", URI: csv, Env: map[string]string{"user": "reader"}},
			{Label: "other", Type: "csv", URI: filepath.Join(dir, "missing.csv")},
		},
		Requested: []Request{{Label: "default", Parameters: `{"query":"select 1","preprocessing":[{"function":"f"}]}`}},
		ProxyHost: "proxyserver", ProxyPort: 8080, ProxyAddress: "127.0.0.2", TmpfsSize: 1 << 20,
	}
	t.Cleanup(func() { _ = root.Open(spec.RunID).Remove() })
	return root, spec
}

func TestValuesAreEncodedAsTheToolsExpect(t *testing.T) {
	for in, want := range map[string]string{"8101": "HAYTAMI!", "": ""} {
		if got := Encode(in); got != want {
			t.Errorf("Encode(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestARunSeesOnlyTheDatabasesItsTaskNames(t *testing.T) {
	root, spec := base(t)
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"INPUT_FILE":                     "/mnt/data/task-000000005/input",
		"TEMPORARY_FOLDER":               "/mnt/tmp",
		"HOST":                           "http://proxyserver",
		"PORT":                           "8080",
		"DB_LABELS":                      "default",
		"USER_REQUESTED_DATABASE_LABELS": "default",
		"DEFAULT_DATABASE_URI":           "/mnt/default.csv",
		"DEFAULT_DATABASE_TYPE":          "csv",
		"DEFAULT_DB_PARAM_USER":          "reader",
		"DEFAULT_QUERY":                  "select 1",
		"DEFAULT_PREPROCESSING":          `[{"function":"f"}]`,
	} {
		if got := decode(t, lookup(t, w.Env, name)); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, v := range w.Env {
		if strings.HasPrefix(v.Name, "OTHER_") {
			t.Errorf("%s is set for a run that did not ask for it", v.Name)
		}
	}
	i := slices.IndexFunc(w.Mounts, func(m Mount) bool { return m.Container == "/mnt/default.csv" })
	if i < 0 || !w.Mounts[i].ReadOnly || w.Mounts[i].Host != spec.Databases[0].URI {
		t.Errorf("mounts %+v, want the file itself, read-only", w.Mounts)
	}
}

func TestDatabaseFaultsNameTheDatabaseAndTheCure(t *testing.T) {
	root, spec := base(t)
	for label, want := range map[string]string{
		"other":   "does not exist",
		"unknown": "not offered by this node",
	} {
		spec.Requested = []Request{{Label: label}}
		_, err := root.Prepare(t.Context(), spec)
		if !errors.Is(err, ErrDatabase) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), label) {
			t.Errorf("%s: %v", label, err)
		}
	}
	if ids, err := root.RunIDs(); len(ids) != 0 || err != nil {
		t.Errorf("refused runs left %v behind (%v)", ids, err)
	}
}

func TestTheImagesOwnVariableCannotBeSet(t *testing.T) {
	root, spec := base(t)
	for _, name := range []string{"PKG_NAME", "1ST", "A-B", ""} {
		spec.AlgorithmEnv = map[string]string{name: "x"}
		if _, err := root.Prepare(t.Context(), spec); err == nil {
			t.Errorf("algorithm_env %q was accepted", name)
		}
	}
}

func TestTheRunContextFileIsPlainAndComplete(t *testing.T) {
	root, spec := base(t)
	spec.RunContext = true
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	inside := lookup(t, w.Env, "RUN_CONTEXT_FILE")
	if inside != "/mnt/data/task-000000005/run_context.json" {
		t.Errorf("RUN_CONTEXT_FILE = %q", inside)
	}
	b, err := os.ReadFile(filepath.Join(w.data(), "run_context.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Entrypoint struct{ Name string }
		Arguments  struct{ Positional, Named json.RawMessage }
		Inputs     []struct{ ID, URI, Type string }
		Executor   struct {
			ID   int64
			Kind string
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if string(doc.Arguments.Named) != `{"column":"age"}` || string(doc.Arguments.Positional) != "[]" {
		t.Errorf("arguments: %s", b)
	}
	if doc.Entrypoint.Name != "partial" || len(doc.Inputs) != 1 || doc.Inputs[0].URI != "/mnt/default.csv" || doc.Executor.ID != 6 || doc.Executor.Kind != "vantage6-node" {
		t.Errorf("run context: %s", b)
	}
}

func TestOnlyAPlainFileIsTakenAsOutput(t *testing.T) {
	root, spec := base(t)
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(w.data(), "output")
	if _, _, err := w.Output(); !errors.Is(err, ErrNoOutput) {
		t.Errorf("empty output: %v", err)
	}
	replace := func(t testing.TB, put func() error) {
		t.Helper()
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
	}
	for name, put := range map[string]func() error{
		"link":      func() error { return os.Symlink("/etc/shadow", out) },
		"pipe":      func() error { return unix.Mkfifo(out, 0o666) },
		"directory": func() error { return os.Mkdir(out, 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			replace(t, put)
			if _, _, err := w.Output(); !errors.Is(err, ErrUnsafeOutput) {
				t.Errorf("%v, want ErrUnsafeOutput", err)
			}
		})
	}
	replace(t, func() error { return nil })
	if _, _, err := w.Output(); !errors.Is(err, ErrNoOutput) {
		t.Errorf("removed output: %v", err)
	}
	replace(t, func() error { return os.WriteFile(out, []byte("{}"), 0o600) })
	f, size, err := w.Output()
	if err != nil || size != 2 {
		t.Fatalf("plain output: %d bytes, %v", size, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnAlgorithmCannotChangeTheNodesCopyOfItsToken(t *testing.T) {
	root, spec := base(t)
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteToken("its-own"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.data(), "token"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := root.Open(5).Token(); got != "its-own" || err != nil {
		t.Errorf("token %q, %v", got, err)
	}
}

func TestRemovingLeavesNothingAndMayBeRepeated(t *testing.T) {
	root, spec := base(t)
	w, err := root.Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Remove(); err != nil {
			t.Fatal(err)
		}
		remove, err := root.ReleaseJob(spec.JobID, true)
		if err := errors.Join(err, remove()); err != nil {
			t.Fatal(err)
		}
	}
	runs, _ := root.RunIDs()
	jobs, _ := root.Jobs()
	if len(runs)+len(jobs) != 0 {
		t.Errorf("left runs %v and jobs %v", runs, jobs)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), root.Dir) {
		t.Error("a mount is left")
	}
}

func TestTheScratchOfAJobIsReleasedAtOnceAndItsContentDeletedLater(t *testing.T) {
	root := Root{Dir: t.TempDir()}
	file := filepath.Join(root.job(7), "left")
	fill := func() {
		t.Helper()
		if err := os.MkdirAll(root.job(7), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	if _, err := root.ReleaseJob(7, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("content was taken away that may still be wanted: %v", err)
	}
	remove, err := root.ReleaseJob(7, true)
	if err != nil {
		t.Fatal(err)
	}
	fill() // the next run of the job
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the next run's content is gone: %v", err)
	}
	// A crash between the two steps.
	if _, err := root.ReleaseJob(7, true); err != nil {
		t.Fatal(err)
	}
	if err := root.RemoveReleased(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(root.released(), "*")); err != nil || len(left) != 0 {
		t.Errorf("left %q, %v", left, err)
	}
}
