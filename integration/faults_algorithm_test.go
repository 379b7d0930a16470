//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/v6node/v6node/integration/standin"
)

// algorithmFaults are algorithms that do what they should not.
func algorithmFaults() []scenario {
	return []scenario{
		{"an algorithm that ends with an error", errorExit},
		{"an algorithm that writes no output", noOutput},
		{"an algorithm that writes more than the node delivers", tooMuchOutput},
		{"an algorithm that prints 100 000 lines", manyLines},
		{"an algorithm that prints binary data", binaryLog},
		{"an algorithm that leaves a daemon behind", daemonLeft},
	}
}

func errorExit(t *testing.T, w *world) {
	alpha := w.alpha(t)
	done := alpha.call(t, "exit", kwargs{"code": 42})
	alpha.failed(t, done, standin.StatusCrashed, "exit code 42", "its own log says why")
	if !strings.HasPrefix(done.Text, "leaving with exit code 42\n") {
		t.Errorf("the algorithm's own words are not in the log: %q", done.Text)
	}
}

func noOutput(t *testing.T, w *world) {
	alpha := w.alpha(t)
	alpha.failed(t, alpha.call(t, "no_output", nil), standin.StatusCrashed, "wrote no output", "OUTPUT_FILE")
}

func tooMuchOutput(t *testing.T, w *world) {
	alpha := w.alpha(t)
	alpha.failed(t, alpha.call(t, "big_output", kwargs{"bytes": largeOutput}), standin.StatusCrashed, "limits.output_size")
}

func manyLines(t *testing.T, w *world) {
	const lines = 100_000
	alpha := w.alpha(t)
	done := alpha.call(t, "spam", kwargs{"lines": lines})
	if got := completed[map[string]int](t, done); got["lines"] != lines {
		t.Errorf("result %v", got)
	}
	// First and last lines are kept, and what is left out is said.
	for _, s := range []string{"line 0 ", "line 1 ", "bytes of log left out by v6node", fmt.Sprintf("line %d ", lines-2), fmt.Sprintf("line %d ", lines-1)} {
		if !strings.Contains(done.Text, s) {
			t.Errorf("the log of %d bytes does not contain %q", len(done.Text), s)
		}
	}
	if len(done.Text) > 5<<20 {
		t.Errorf("the log has %d bytes", len(done.Text))
	}
	alpha.goesOn(t, done.ID)
}

func binaryLog(t *testing.T, w *world) {
	alpha := w.alpha(t)
	done := alpha.call(t, "binary_log", kwargs{"bytes": 100_000})
	if got := completed[map[string]int](t, done); got["bytes"] != 100_000 {
		t.Errorf("result %v", got)
	}
	if !utf8.ValidString(done.Text) || strings.ContainsRune(done.Text, 0) || !strings.Contains(done.Text, "abcdefghijklmnopqrstuvwxyz") {
		t.Errorf("the log is not readable text: %.300q", done.Text)
	}
	alpha.goesOn(t, done.ID)
}

func daemonLeft(t *testing.T, w *world) {
	const seconds = 86_473 // a number that nothing else on the machine sleeps
	alpha := w.alpha(t)
	done := alpha.call(t, "fork_daemon", kwargs{"seconds": seconds})
	if got := completed[map[string]int](t, done); got["daemon"] == 0 {
		t.Errorf("no daemon was started: %v", got)
	}
	alpha.goesOn(t, done.ID)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && bytes.Contains(b, []byte(fmt.Sprintf("sleep\x00%d", seconds*1000))) {
			t.Errorf("the daemon lives as process %s", e.Name())
		}
	}
}
