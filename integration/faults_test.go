//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
)

// What goes wrong must show in four places: a sentence where a person reads it,
// the status at the server, nothing that is left behind, and a node whose other
// runs go on.

func TestFaultsOnEmbeddedContainerd(t *testing.T) { faultsOn(t, embeddedKind) }

func TestFaultsOnExternalContainerd(t *testing.T) { faultsOn(t, externalKind) }

// faultsOn runs what depends on the runtime on one kind of it.
func faultsOn(t *testing.T, k kind) {
	w := newWorld(t, k)
	besideAnotherRun(t, w.alpha(t), slices.Concat(imageFaults(), databaseFaults(), algorithmFaults(), runtimeFaults()))
}

// besideAnotherRun runs scenarios side by side while an algorithm runs on the
// node that most of them disturb, and proves that this one has noticed nothing.
func besideAnotherRun(t *testing.T, n *node, scenarios []scenario) {
	other := n.hold(t)
	t.Run("while another algorithm runs", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.run(t, n.w)
			})
		}
	})
	other.undisturbed(t)
	n.gone(t, other.run)
}

// sentence is what the node itself says about a run, at the end of its log.
func (e ended) sentence(t testing.TB) string {
	t.Helper()
	const mark = "v6node: "
	at := strings.LastIndex(e.Text, mark)
	if at < 0 || (at > 0 && e.Text[at-1] != '\n') {
		t.Fatalf("the node says nothing in the log of run %d, which ended as %q: %.2000s", e.ID, e.Status, e.Text)
	}
	text, more, _ := strings.Cut(e.Text[at+len(mark):], "\n")
	// Pieces of the log go another way than the final report, and the last of them
	// may come after it: then these lines stand there twice.
	if more != "" && !strings.HasSuffix(e.Text[:at], more) {
		text += "\n" + more
	}
	return text
}

// oneSentence checks a message for people: one line, not endless, with all that
// it must name.
func oneSentence(t testing.TB, text string, says ...string) {
	t.Helper()
	if text == "" || strings.Contains(strings.TrimRight(text, "\n"), "\n") || len(text) > 800 {
		t.Errorf("not one readable sentence: %q", text)
	}
	for _, s := range says {
		if !strings.Contains(text, s) {
			t.Errorf("the message does not say %q: %s", s, text)
		}
	}
}

// failed checks a run that a fault has ended: its status, the time of its end,
// the node's sentence, that nothing of it is left, and that the node goes on.
func (n *node) failed(t *testing.T, e ended, status string, says ...string) {
	t.Helper()
	if e.Status != status || e.FinishedAt == nil {
		t.Errorf("run %d ended as %q at %v, wanted %q: %.2000s", e.ID, e.Status, e.FinishedAt, status, e.Text)
	}
	if len(e.Data) > 0 {
		t.Errorf("a failed run has a result: %.100q", e.Data)
	}
	t.Log(e.sentence(t))
	oneSentence(t, e.sentence(t), says...)
	n.onceDelivered(t, e.ID)
	n.goesOn(t, e.ID)
}

// onceDelivered checks that one PATCH ended the run.
func (n *node) onceDelivered(t testing.TB, run int64) {
	t.Helper()
	rec, _ := n.w.server.Run(run)
	finals := 0
	for _, e := range rec.History {
		if e.Kind == standin.RunPatched && e.Body["finished_at"] != nil {
			finals++
		}
	}
	if finals != 1 {
		t.Errorf("run %d was finished %d times", run, finals)
	}
}

// goesOn checks that nothing of a run is left and that the node does the next.
func (n *node) goesOn(t *testing.T, run int64) {
	t.Helper()
	n.gone(t, run)
	n.noTraces(t, run)
	if next := n.call(t, "noop", nil); next.Status != standin.StatusCompleted {
		t.Errorf("the next run on the node ended as %q: %s", next.Status, next.Text)
	}
}

// noTraces checks for control groups and mounts of one run.
func (n *node) noTraces(t *testing.T, run int64) {
	t.Helper()
	eventually(t, func() error {
		var errs []error
		for _, pattern := range n.groups(t, run, "*") {
			found, err := filepath.Glob(pattern)
			if err != nil || len(found) > 0 {
				errs = append(errs, fmt.Errorf("control groups of run %d: %q (%w)", run, found, err))
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), n.runDir(run)+"/") {
			errs = append(errs, fmt.Errorf("a mount of run %d is left (%w)", run, err))
		}
		return errors.Join(errs...)
	})
}

// exits starts a node that cannot work, and checks how it ends and what it says
// last. It returns these words.
func (n *node) exits(t *testing.T, code int, says ...string) string {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	got, err := n.Wait(within(t))
	if err != nil {
		t.Fatal(err)
	}
	words, ok := strings.CutPrefix(n.Log(1), "v6node: ")
	if got != code || !ok {
		t.Errorf("exit code %d, wanted %d:\n%s", got, code, n.Log(20))
	}
	t.Log(words)
	oneSentence(t, words, says...)
	n.leavesNoWork(t)
	return words
}

// leavesNoWork checks that a node which could not start has begun nothing.
func (n *node) leavesNoWork(t *testing.T) {
	t.Helper()
	for _, sub := range []string{"runs", "jobs"} {
		found, err := os.ReadDir(filepath.Join(n.StateDir, "work", sub))
		if len(found) > 0 || (err != nil && !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "not a directory")) {
			t.Errorf("files are left: %v (%v)", found, err)
		}
	}
}
