package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const stamp = "2026-01-02T15:04:05.123456789Z"

func record(stream, tag, text string) string {
	return stamp + " " + stream + " " + tag + " " + text + "\n"
}

type gotLine struct {
	stream, text string
	partial      bool
}

func readAll(t testing.TB, r io.Reader) []gotLine {
	t.Helper()
	var all []gotLine
	err := ReadLog(r, func(l LogLine) error {
		if len(l.Text) > MaxLogText {
			t.Errorf("a text of %d bytes", len(l.Text))
		}
		all = append(all, gotLine{l.Stream, string(l.Text), l.Partial})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestReadLogJoinsWhatTheRuntimeCut(t *testing.T) {
	bin := "\x00\xff\x1b[0m\r"
	in := record("stdout", "F", "one") +
		record("stdout", "P", "two ") +
		record("stderr", "P", "err ") +
		record("stdout", "P", "two ") +
		record("stderr", "F", "err") +
		record("stdout", "F", "two") +
		record("stdout", "F", "") +
		record("stdout", "F:x:y", "tagged") +
		record("stderr", "F", bin) +
		record("stdout", "P", "no newline")
	want := []gotLine{
		{"stdout", "one", false},
		{"stderr", "err err", false},
		{"stdout", "two two two", false},
		{"stdout", "", false},
		{"stdout", "tagged", false},
		{"stderr", bin, false},
		{"stdout", "no newline", true},
	}
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in)), "data with EOF": iotest.DataErrReader(strings.NewReader(in)),
	} {
		if got := readAll(t, r); !slices.Equal(got, want) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestReadLogTellsTheTime(t *testing.T) {
	err := ReadLog(strings.NewReader("2026-01-02T17:04:05.000000001+02:00 stdout F x\n"), func(l LogLine) error {
		if want := time.Date(2026, 1, 2, 15, 4, 5, 1, time.UTC); !l.Time.Equal(want) {
			t.Errorf("got %v", l.Time)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadLogHandsOnWhatIsNoRecord(t *testing.T) {
	for _, bad := range []string{
		"garbage", "x stdout F y", stamp + " stdin F y", stamp + " stdout X y", stamp + " stdout", stamp + " stdout ", stamp + " stdout Fx y",
		strings.Repeat("9", 100), stamp + " stdout F" + strings.Repeat(":", 100),
	} {
		got := readAll(t, strings.NewReader(record("stdout", "P", "a")+bad+"\n"+record("stdout", "F", "b")))
		want := []gotLine{{"", bad, false}, {"stdout", "ab", false}}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %+v", bad, got)
		}
	}
	if got := readAll(t, strings.NewReader("\n\n\n")); len(got) != 0 {
		t.Errorf("empty lines: got %+v", got)
	}
}

func TestReadLogKeepsWhatIsReadableOfATornRecord(t *testing.T) {
	got := readAll(t, strings.NewReader(stamp+" stdout F half a li"))
	if !slices.Equal(got, []gotLine{{"stdout", "half a li", true}}) {
		t.Errorf("got %+v", got)
	}
}

func TestLinesOfAnyLengthArriveWholeInBoundedPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	long := make([]byte, 3*MaxLogText+17)
	for i := range long {
		long[i] = byte('a' + rng.IntN(26))
	}
	var cut strings.Builder
	for rest := string(long); rest != ""; {
		n := min(len(rest), 16<<10)
		tag := "P"
		if n == len(rest) {
			tag = "F"
		}
		cut.WriteString(record("stdout", tag, rest[:n]))
		rest = rest[n:]
	}
	for name, in := range map[string]string{
		"cut by the runtime": cut.String(),
		"in one record":      record("stdout", "F", string(long)),
		"of one piece":       record("stdout", "F", string(long[:MaxLogText])),
		"no record":          string(long) + "\n",
	} {
		got := readAll(t, strings.NewReader(in+record("stderr", "F", "end")))
		var text strings.Builder
		for i, l := range got[:len(got)-1] {
			text.WriteString(l.text)
			if l.partial == (i == len(got)-2) {
				t.Errorf("%s: piece %d of %d has Partial=%v", name, i, len(got)-1, l.partial)
			}
		}
		want := string(long)
		if name == "of one piece" {
			want = want[:MaxLogText]
		}
		if text.String() != want {
			t.Errorf("%s: %d bytes arrived of %d", name, text.Len(), len(want))
		}
		if last := got[len(got)-1]; last != (gotLine{"stderr", "end", false}) {
			t.Errorf("%s: the line after it is %+v", name, last)
		}
	}
}

func TestReadLogReturnsTheErrorsOfReaderAndCallback(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	err := ReadLog(strings.NewReader(strings.Repeat(record("stdout", "F", "x"), 10)), func(LogLine) error {
		n++
		if n == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 3 {
		t.Errorf("got %v after %d lines", err, n)
	}
	if err := ReadLog(iotest.ErrReader(stop), func(LogLine) error { return nil }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestReadingGoesOnWithoutLossOrRepetition(t *testing.T) {
	in := []byte(record("stdout", "F", "1") + record("stdout", "P", "2") + record("stderr", "F", "3") + record("stdout", "F", "4") + record("stdout", "F", "5"))
	var all []gotLine
	var places []LogPos
	p := newLogParser(LogPos{}, func(l LogLine, next LogPos) error {
		all = append(all, gotLine{l.Stream, string(l.Text), l.Partial})
		places = append(places, next)
		return nil
	})
	if err := p.write(in); err != nil {
		t.Fatal(err)
	}
	for i, at := range places {
		var rest []gotLine
		q := newLogParser(at, func(l LogLine, _ LogPos) error {
			rest = append(rest, gotLine{l.Stream, string(l.Text), l.Partial})
			return nil
		})
		if err := q.write(in[at.first().Byte:]); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(rest, all[i+1:]) {
			t.Errorf("after line %d come %+v, want %+v", i, rest, all[i+1:])
		}
	}
	if last := places[len(places)-1].first(); last.Byte != int64(len(in)) {
		t.Errorf("the last offset is %d of %d", last.Byte, len(in))
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte(record("stdout", "F", "x")), 1)
	f.Add([]byte(record("stdout", "P", "x")+record("stderr", "F", "y")+record("stdout", "F", "z")), 7)
	f.Add([]byte(record("stdout", "F", strings.Repeat("l", MaxLogText+1))), 4096)
	f.Add([]byte("\n\x00\xff garbage\n"+stamp+" stdout F torn"), 3)
	f.Add([]byte(stamp+" stdout P:a:b x\n"+stamp+" stderr F\n"), 2)
	f.Add([]byte(strings.Repeat("x", 2*MaxLogText)), 100)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		var whole, pieces []string
		collect := func(to *[]string) func(LogLine, LogPos) error {
			last := LogPos{}
			return func(l LogLine, next LogPos) error {
				if len(l.Text) > MaxLogText {
					t.Fatalf("a text of %d bytes", len(l.Text))
				}
				if l.Stream != "" && l.Stream != "stdout" && l.Stream != "stderr" {
					t.Fatalf("stream %q", l.Stream)
				}
				if next.last().Byte > int64(len(in)) || next.Stdout.Before(last.Stdout) || next.Stderr.Before(last.Stderr) {
					t.Fatalf("offset %v after %v of %d", next, last, len(in))
				}
				last = next
				*to = append(*to, fmt.Sprint(l.Stream, l.Partial, l.Time.UnixNano(), string(l.Text)))
				return nil
			}
		}
		p := newLogParser(LogPos{}, collect(&whole))
		if err := errors.Join(p.write(in), p.finish()); err != nil {
			t.Fatal(err)
		}
		// How the input is cut makes no difference.
		step = max(1, min(step, 1<<20))
		q := newLogParser(LogPos{}, collect(&pieces))
		for b := in; len(b) > 0; {
			n := min(step, len(b))
			if err := q.write(bytes.Clone(b[:n])); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		if err := q.finish(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(whole, pieces) {
			t.Fatalf("read at once %q, in pieces %q", whole, pieces)
		}
	})
}

func FuzzCountedTextIsTheTextRead(f *testing.F) {
	f.Add([]byte(record("stdout", "F", "x") + record("stderr", "P", "y") + "garbage\n\n" + record("stdout", "F:a", "")))
	f.Add([]byte(record("stdout", "F", strings.Repeat("l", MaxLogText+1))))
	f.Add([]byte(stamp + " stdout F\n" + stamp + " stdout torn"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var want int64
		err := ReadLog(bytes.NewReader(in), func(l LogLine) error {
			want += int64(len(l.Text))
			if !l.Partial {
				want++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range bytes.Split(in, []byte{'\n'}) {
			_, _, known := headerLength(line)
			if h, _ := parseLogHeader(line); known != (h.stream >= 0) {
				return // only the form of a time is looked at when counting
			}
		}
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, in, 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := countLog(path, 0, int64(len(in)))
		if err != nil || got != want {
			t.Fatalf("%q: counted %d, %v, read %d", in, got, err, want)
		}
	})
}

func BenchmarkCountLog(b *testing.B) {
	in := []byte(strings.Repeat(record("stdout", "F", strings.Repeat("x", 80)), 10_000))
	path := filepath.Join(b.TempDir(), "log")
	if err := os.WriteFile(path, in, 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if _, _, err := countLog(path, 0, int64(len(in))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadLog(b *testing.B) {
	in := []byte(strings.Repeat(record("stdout", "F", strings.Repeat("x", 80)), 10_000))
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if err := ReadLog(bytes.NewReader(in), func(LogLine) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
