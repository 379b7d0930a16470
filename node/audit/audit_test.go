package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T, dir string, o Options) *Log {
	t.Helper()
	l, damage, err := Open(dir, o)
	if err != nil || damage != nil {
		t.Fatalf("open: damage %v, error %v", damage, err)
	}
	return l
}

// chain writes n entries and returns the head.
func chain(t *testing.T, dir string, n int, o Options) Head {
	t.Helper()
	l := open(t, dir, o)
	for i := range n {
		if err := l.Append(Entry{Event: Decided, Run: int64(i + 1), Image: "ghcr.io/org/algo:v1", Reason: "a \"quoted\"\nreason"}); err != nil {
			t.Fatal(err)
		}
	}
	head := l.Head()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return head
}

func verified(t *testing.T, dir string, known *Head) Report {
	t.Helper()
	r, err := Verify(dir, known)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhatWasAppendedIsAVerifiedChainOverFilesAndStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	o := Options{Node: "alpha", FileBytes: 2000}
	first := chain(t, dir, 30, o)
	head := chain(t, dir, 30, o)
	r := verified(t, dir, &first)
	if r.Entries != 60 || r.First != 1 || r.Head != head || r.Files < 5 {
		t.Errorf("%+v, want 60 entries, head %v", r, head)
	}
	n := 0
	if err := Each(dir, func(l *Line) error {
		n++
		e, err := l.Entry()
		if err != nil {
			return err
		}
		if e.Seq != uint64(n) || e.Node != "alpha" || e.Time.IsZero() || !l.Whole {
			t.Errorf("entry %d: %+v", n, e)
		}
		return nil
	}); err != nil || n != 60 {
		t.Errorf("%d lines, %v", n, err)
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	chain(t, dir, 1, Options{})
	if err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// edit changes the lines of the directory's only file.
func edit(change func([]string) []string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, fileName(1))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := change(strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n"))
		lines[len(lines)-1] = strings.TrimSuffix(lines[len(lines)-1], "\n") + "\n"
		if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// tamperings are ways to falsify a chain of ten entries, with where it shows.
var tamperings = map[string]struct {
	do   func(*testing.T, string)
	line int
	says string
}{
	"an entry is changed": {edit(func(l []string) []string {
		l[3] = strings.Replace(l[3], `"run":4`, `"run":5`, 1)
		return l
	}), 4, "was changed"},
	"the last entry is changed": {edit(func(l []string) []string {
		l[9] = strings.Replace(l[9], `"run":10`, `"run":11`, 1)
		return l
	}), 10, "not the one that was written"},
	"an entry is removed":             {edit(func(l []string) []string { return append(l[:3], l[4:]...) }), 4, "entry 5 follows entry 3"},
	"the first entry is removed":      {edit(func(l []string) []string { return l[1:] }), 1, "begins with entry 2"},
	"the last two entries go":         {edit(func(l []string) []string { return l[:8] }), 8, "removed from the end"},
	"two entries change places":       {edit(func(l []string) []string { l[2], l[3] = l[3], l[2]; return l }), 3, "entry 4 follows entry 2"},
	"an entry is there twice":         {edit(func(l []string) []string { return append(l[:3:3], l[2:]...) }), 4, "entry 3 follows entry 3"},
	"a line is no JSON":               {edit(func(l []string) []string { l[5] = "nonsense\n"; return l }), 6, "no entry"},
	"the first one gets a forerunner": {edit(func(l []string) []string { l[0] = strings.Replace(l[0], `"prev":"0`, `"prev":"1`, 1); return l }), 1, "names a predecessor"},
	"all is removed": {func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, fileName(1))); err != nil {
			t.Fatal(err)
		}
	}, 0, "removed from the end"},
	"head is removed": {func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, headName)); err != nil {
			t.Fatal(err)
		}
	}, 0, "is missing"},
	"head is nonsense": {func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, headName), []byte("1:abc"), 0o600); err != nil {
			t.Fatal(err)
		}
	}, 0, "changed"},
	"the file is renamed": {func(t *testing.T, dir string) {
		if err := os.Rename(filepath.Join(dir, fileName(1)), filepath.Join(dir, fileName(7))); err != nil {
			t.Fatal(err)
		}
	}, 1, "its name does not say"},
}

func TestTamperingIsDetectedAndLocated(t *testing.T) {
	for name, c := range tamperings {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			chain(t, dir, 10, Options{})
			c.do(t, dir)
			_, err := Verify(dir, nil)
			var d *Damage
			if !errors.As(err, &d) || d.Line != c.line || !strings.Contains(d.Problem, c.says) {
				t.Errorf("verify says %v, want line %d and %q", err, c.line, c.says)
			}
		})
	}
}

func TestADamagedChainIsContinuedAndTheDamageOnRecord(t *testing.T) {
	for name, c := range tamperings {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			chain(t, dir, 10, Options{})
			c.do(t, dir)
			l, damage, err := Open(dir, Options{})
			if err != nil || damage == nil {
				t.Fatalf("damage %v, error %v", damage, err)
			}
			if err := errors.Join(l.Append(Entry{Event: NodeStarted}), l.Close()); err != nil {
				t.Fatal(err)
			}
			var said bool
			if err := Each(dir, func(l *Line) error {
				said = said || bytes.Contains(l.Raw, []byte(`"event":"damaged"`))
				return nil
			}); err != nil || !said {
				t.Errorf("the damage is not on record (%v)", err)
			}
		})
	}
}

func TestAnEarlierHeadExposesANewChain(t *testing.T) {
	dir, forged := t.TempDir(), t.TempDir()
	noted := chain(t, dir, 3, Options{})
	chain(t, forged, 10, Options{Node: "other"})
	if _, err := Verify(forged, &noted); !IsDamage(err) {
		t.Errorf("a forged chain passes: %v", err)
	}
	again, err := ParseHead(noted.String())
	if err != nil || again != noted {
		t.Errorf("the head %v reads back as %v, %v", noted, again, err)
	}
}

func TestALineThatACrashHasCutIsTakenOffAndSaid(t *testing.T) {
	dir := t.TempDir()
	chain(t, dir, 3, Options{})
	f, err := os.OpenFile(filepath.Join(dir, fileName(1)), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"seq":4,"time":"2026`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	verified(t, dir, nil) // as while a node is writing
	l := open(t, dir, Options{})
	if err := errors.Join(l.Append(Entry{Event: NodeStarted}), l.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir, nil); r.Entries != 5 {
		t.Errorf("%d entries, want 3, the recovery and 1", r.Entries)
	}
}

func TestACrashBeforeHeadWasWrittenIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	chain(t, dir, 3, Options{})
	old, err := os.ReadFile(filepath.Join(dir, headName))
	if err != nil {
		t.Fatal(err)
	}
	chain(t, dir, 1, Options{})
	if err := os.WriteFile(filepath.Join(dir, headName), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir, nil); r.Entries != 4 {
		t.Errorf("%+v", r)
	}
	chain(t, dir, 1, Options{})
	verified(t, dir, nil)
}

func TestOlderFilesMayBeTakenAway(t *testing.T) {
	dir := t.TempDir()
	head := chain(t, dir, 40, Options{FileBytes: 1000})
	names, err := files(dir)
	if err != nil || len(names) < 4 {
		t.Fatal(names, err)
	}
	for _, name := range names[:2] {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if r := verified(t, dir, &head); r.First <= 1 || r.Head != head {
		t.Errorf("%+v", r)
	}
	if err := os.Remove(filepath.Join(dir, names[3])); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir, nil); !IsDamage(err) {
		t.Errorf("a file is missing in the middle, and verify says %v", err)
	}
}

func TestTwoProcessesDoNotShareAChain(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	if _, _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one is let in: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestEntriesAtTheSameTimeFormOneChain(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{FileBytes: 3000})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for range 10 {
				if err := l.Append(Entry{Event: Ended, Run: int64(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir, nil); r.Entries != 200 {
		t.Errorf("%d entries", r.Entries)
	}
}

func TestWhatOthersSendIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	long := strings.Repeat("ä", 1<<20)
	many := make([]string, 10_000)
	for i := range many {
		many[i] = long[:5000]
	}
	if err := errors.Join(l.Append(Entry{Event: Decided, Image: long, Function: "a\nb\x00", Databases: many}), l.Append(Entry{Event: NodeStopped}), l.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir, nil); r.Entries != 2 {
		t.Errorf("%+v", r)
	}
	info, err := os.Stat(filepath.Join(dir, fileName(1)))
	if err != nil || info.Size() > 2<<20 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

func TestFollowingGivesTheLastLinesThenThoseThatCome(t *testing.T) {
	dir := t.TempDir()
	chain(t, dir, 5, Options{FileBytes: 600})
	ctx, cancel := context.WithCancel(t.Context())
	l := open(t, dir, Options{FileBytes: 600})
	defer l.Close() //nolint:errcheck // appended durably
	var seqs []uint64
	err := Follow(ctx, dir, 2, func(line *Line) error {
		e, err := line.Entry()
		if err != nil {
			return err
		}
		if seqs = append(seqs, e.Seq); e.Seq == 8 {
			cancel()
		}
		if e.Seq == 5 {
			for range 3 {
				if err := l.Append(Entry{Event: NodeStarted}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || fmt.Sprint(seqs) != "[4 5 6 7 8]" {
		t.Errorf("%v, %v", seqs, err)
	}
}

func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	l, _, err := Open(dir, Options{})
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if err := l.Append(Entry{Event: Decided}); err != nil {
			f.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, fileName(1)))
	if err != nil {
		f.Fatal(err)
	}
	head, err := os.ReadFile(filepath.Join(dir, headName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, head)
	f.Add(good[:len(good)-5], head)
	f.Add([]byte("{}\n"), []byte{})
	f.Fuzz(func(t *testing.T, lines, head []byte) {
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(dir, fileName(1)), lines, 0o600), os.WriteFile(filepath.Join(dir, headName), head, 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(dir, nil)
		if err == nil && len(lines) > 0 && bytes.HasSuffix(lines, []byte("\n")) && len(head) > 0 && !bytes.HasPrefix(good, lines) && !bytes.Contains(lines, []byte(`"seq"`)) {
			t.Errorf("lines without numbers pass as a chain: %q", lines)
		}
		l, _, err := Open(dir, Options{})
		if err != nil {
			return // as long as it says so
		}
		if err := errors.Join(l.Append(Entry{Event: NodeStarted}), l.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestOfTooManyConnectionsNoByteIsMissing(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	var all []Connection
	for i := range int64(maxItems + 10) {
		all = append(all, Connection{At: fmt.Sprintf("db%d:5432", i), Kind: "tcp", Connections: 1, Failed: 2, Sent: i, Received: 2 * i, AtLeast: i == maxItems})
	}
	for _, n := range []int{maxItems, len(all)} {
		if err := l.Append(Entry{Event: Ended, Run: int64(n), Connections: all[:n]}); err != nil {
			t.Fatal(err)
		}
	}
	if all[maxItems-1].At != fmt.Sprintf("db%d:5432", maxItems-1) {
		t.Error("the caller's connections were changed")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Each(dir, func(l *Line) error {
		e, err := l.Entry()
		if err != nil {
			return err
		}
		var sum Connection
		for _, c := range e.Connections {
			sum.Connections, sum.Failed, sum.Sent, sum.Received = sum.Connections+c.Connections, sum.Failed+c.Failed, sum.Sent+c.Sent, sum.Received+c.Received
		}
		last := e.Connections[maxItems-1]
		if want := (Connection{Connections: e.Run, Failed: 2 * e.Run, Sent: e.Run * (e.Run - 1) / 2, Received: e.Run * (e.Run - 1)}); len(e.Connections) != maxItems || sum != want {
			t.Errorf("%d connections are on record as %d, with %+v", e.Run, len(e.Connections), sum)
		}
		if summed := e.Run > maxItems; (last.At == Others) != summed || last.AtLeast != summed {
			t.Errorf("of %d connections the last is on record as %+v", e.Run, last)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
