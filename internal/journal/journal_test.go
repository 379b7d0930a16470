package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// writes collects what is written, one element a write.
type writes struct{ all []string }

func (w *writes) Write(p []byte) (int, error) { w.all = append(w.all, string(p)); return len(p), nil }

func TestARecordIsOneLineWithItsPriorityAndWithoutATime(t *testing.T) {
	var w writes
	log := slog.New(NewHandler(&w, slog.LevelInfo)).With("run", 7)
	log.Debug("not shown")
	log.Info("started", "error", errors.New("two\nlines"))
	log.WithGroup("g").Warn("slow", slog.TimeKey, "mine")
	log.Error("broken", slog.TimeKey, "mine too")
	want := []string{
		"<6>level=INFO msg=started run=7 error=\"two\\nlines\"\n",
		"<4>level=WARN msg=slow run=7 g.time=mine\n",
		"<3>level=ERROR msg=broken run=7 time=\"mine too\"\n",
	}
	if fmt.Sprint(w.all) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", w.all, want)
	}
}

func TestRecordsOfManyDoNotMix(t *testing.T) {
	var w writes
	log := slog.New(NewHandler(&w, slog.LevelDebug))
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { log.With("i", i).Debug("words", "more", strings.Repeat("x", 100)) })
	}
	all.Wait()
	for _, line := range w.all {
		if !strings.HasPrefix(line, "<7>level=DEBUG msg=words i=") || strings.Count(line, "\n") != 1 {
			t.Errorf("a line is %q", line)
		}
	}
	if len(w.all) != 50 {
		t.Errorf("%d lines", len(w.all))
	}
}

func TestOnlyTheStreamThatSystemdNamedIsTheJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{
		"": false, "nonsense": false, "8:1": false,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
	} {
		t.Setenv("JOURNAL_STREAM", value)
		if got := Connected(f); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}
