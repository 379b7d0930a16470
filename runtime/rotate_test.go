package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// writer writes a log as containerd does: what it has read of a line is written
// into the old file when another one is begun, perhaps after the new one's first
// lines.
type writer struct {
	t    testing.TB
	path string

	mu    sync.Mutex
	file  *os.File
	late  func() // what is still to go into the old file, which it closes
	fail  error  // what reopening says
	lines int
	text  int64
}

func newWriter(t testing.TB) *writer {
	w := &writer{t: t, path: filepath.Join(t.TempDir(), "a.log")}
	w.file = w.create()
	t.Cleanup(func() { w.end() })
	return w
}

func (w *writer) create() *os.File {
	f, err := os.OpenFile(w.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *writer) put(f *os.File, s string) {
	if _, err := f.WriteString(s); err != nil {
		w.t.Error(err)
	}
}

func line(i int) string { return fmt.Sprintf("line %d", i) }

// write writes so many numbered lines.
func (w *writer) write(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for range n {
		b.WriteString(record("stdout", "F", line(w.lines)))
		w.text += int64(len(line(w.lines))) + 1
		w.lines++
	}
	w.put(w.file, b.String())
	w.finishOld()
}

func (w *writer) finishOld() {
	if w.late != nil {
		w.late()
		w.late = nil
	}
}

// reopen is what the runtime does at ReopenContainerLog, in the middle of a line.
func (w *writer) reopen(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	w.finishOld()
	old, text := w.file, line(w.lines)
	w.text += int64(len(text)) + 1
	w.lines++
	w.file = w.create()
	w.put(w.file, record("stdout", "F", text[3:]))
	w.late = func() {
		w.put(old, record("stdout", "P", text[:3]))
		if err := old.Close(); err != nil {
			w.t.Error(err)
		}
	}
	return nil
}

func (w *writer) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finishOld()
	w.file.Close()
}

// rotate rotates by hand, without taking anything away.
func (w *writer) rotate(number int) {
	w.t.Helper()
	if err := os.Rename(w.path, fmt.Sprint(w.path, ".", number)); err != nil {
		w.t.Fatal(err)
	}
	if err := w.reopen(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestFollowingLosesAndRepeatsNothingAcrossRotations(t *testing.T) {
	w := newWriter(t)
	g := follow(t, nil, w.path, LogPos{})
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		w.write(rng.IntN(50))
		w.rotate(i + 1)
	}
	w.end()
	for i := range w.lines {
		g.want(t, line(i))
	}
	if rest := g.end(t); len(rest) != 0 {
		t.Errorf("got %q at the end", rest)
	}
}

func TestReadingGoesOnAnywhereInARotatedLog(t *testing.T) {
	w := newWriter(t)
	for i := range 6 {
		w.write(7)
		w.rotate(i + 1)
	}
	w.write(3)
	w.end()
	var all []string
	var places []LogPos
	collect := func(to *[]string) func(LogLine, LogPos) error {
		return func(l LogLine, next LogPos) error {
			*to = append(*to, string(l.Text))
			places = append(places, next)
			return nil
		}
	}
	if _, err := ReadLogFiles(w.path, LogPos{}, collect(&all)); err != nil {
		t.Fatal(err)
	}
	if len(all) != w.lines {
		t.Fatalf("%d lines of %d", len(all), w.lines)
	}
	for i, at := range slices.Clone(places) {
		var rest []string
		next, err := ReadLogFiles(w.path, at, collect(&rest))
		if err != nil || !slices.Equal(rest, all[i+1:]) {
			t.Fatalf("after %q: %q, %v", all[i], rest, err)
		}
		if next != places[len(all)-1] {
			t.Fatalf("the end is %v and %v", next, places[len(all)-1])
		}
	}
}

// seen is what a reader got of a numbered log.
type seen struct {
	next    int // the line that is to come
	text    int64
	gaps    int
	dropped int64
	wrong   error
}

func (s *seen) line(l LogLine) error {
	if l.Gap {
		s.gaps++
		s.dropped += l.Dropped
		s.next = -1
		return nil
	}
	s.text += int64(len(l.Text))
	if l.Partial {
		return nil // cut at a gap
	}
	s.text++
	var i int
	if _, err := fmt.Sscanf(string(l.Text), "line %d", &i); err != nil && s.next >= 0 || s.next >= 0 && i != s.next {
		s.wrong = fmt.Errorf("got %q, want line %d", l.Text, s.next)
		return s.wrong
	} else if err == nil {
		s.next = i + 1
	}
	return nil
}

func TestARotatorKeepsBeginningAndEndAndCountsTheRest(t *testing.T) {
	for _, limit := range []int64{4 << 10, 64 << 10} {
		for _, chunk := range []int{7, 200, 20_000} {
			w := newWriter(t)
			const head = 512
			r := NewRotator(w.path, RotatorOptions{Reopen: w.reopen, Head: head})
			for i := 0; i < 3 || w.text < 3*limit; i++ {
				w.write(chunk)
				if _, err := r.Keep(t.Context(), limit); err != nil {
					t.Fatal(err)
				}
				total, err := r.total()
				// What was written since the last look comes on top, and
				// what is still to be completed by the runtime.
				if most := limit + 2*int64(chunk+1)*60; err != nil || total > most {
					t.Fatalf("limit %d, chunk %d: %d bytes on the disk, %v", limit, chunk, total, err)
				}
			}
			w.end()
			var s seen
			if err := ReadWholeLog(w.path, s.line); err != nil {
				t.Fatal(err)
			}
			if s.next != w.lines || s.gaps != 1 {
				t.Errorf("limit %d, chunk %d: read to line %d of %d, with %d gaps", limit, chunk, s.next, w.lines, s.gaps)
			}
			if s.text+s.dropped != w.text {
				t.Errorf("limit %d, chunk %d: %d bytes read and %d dropped of %d", limit, chunk, s.text, s.dropped, w.text)
			}
			var first int64
			stop := errors.New("stop")
			err := ReadWholeLog(w.path, func(l LogLine) error {
				if l.Gap {
					return stop
				}
				first += int64(len(l.Text)) + 1
				return nil
			})
			if err != stop || first < min(head, limit/4/10) {
				t.Errorf("limit %d, chunk %d: the beginning has %d bytes, %v", limit, chunk, first, err)
			}
		}
	}
}

func TestALogThatGrewUnwatchedIsCutToItsBeginningAndEnd(t *testing.T) {
	w := newWriter(t)
	w.write(100_000)
	r := NewRotator(w.path, RotatorOptions{Reopen: w.reopen, Head: 1 << 10})
	const limit = 64 << 10
	if _, err := r.Keep(t.Context(), limit); err != nil {
		t.Fatal(err)
	}
	w.write(10)
	if _, err := r.Keep(t.Context(), limit); err != nil {
		t.Fatal(err)
	}
	if total, err := r.total(); err != nil || total > limit {
		t.Errorf("%d bytes on the disk, %v", total, err)
	}
	w.end()
	var s seen
	if err := ReadWholeLog(w.path, s.line); err != nil {
		t.Fatal(err)
	}
	if s.next != w.lines || s.gaps != 1 || s.text+s.dropped != w.text || s.text < limit/20 {
		t.Errorf("%+v of %d lines with %d bytes", s, w.lines, w.text)
	}
}

func TestAFollowerThatFallsBehindIsToldOfTheGap(t *testing.T) {
	w := newWriter(t)
	r := NewRotator(w.path, RotatorOptions{Reopen: w.reopen, Head: 1 << 10})
	const limit = 16 << 10
	var s seen
	first, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	begun := false
	go func() {
		done <- FollowLog(ctx, w.path, LogPos{}, func(l LogLine, _ LogPos) error {
			if !begun {
				begun = true
				close(first)
				<-goOn
			}
			return s.line(l)
		})
	}()
	w.write(1)
	<-first
	for range 100 {
		w.write(100)
		if _, err := r.Keep(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
	}
	close(goOn)
	w.end()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s.next != w.lines || s.gaps == 0 {
		t.Errorf("followed to line %d of %d, with %d gaps", s.next, w.lines, s.gaps)
	}
}

func TestFollowersKeepUpWithARotatorOrSayWhatTheyMiss(t *testing.T) {
	w := newWriter(t)
	r := NewRotator(w.path, RotatorOptions{Reopen: w.reopen, Head: 8 << 10})
	const limit = 256 << 10
	f, err := NewFollower()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var followers sync.WaitGroup
	var all [4]seen
	for i := range all {
		followers.Go(func() {
			if err := f.Follow(ctx, w.path, LogPos{}, func(l LogLine, _ LogPos) error { return all[i].line(l) }); err != nil {
				t.Error(err)
			}
		})
	}
	for range 150 {
		w.write(100)
		if _, err := r.Keep(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
		followers.Go(func() { // the runtime, meanwhile
			w.mu.Lock()
			defer w.mu.Unlock()
			w.finishOld()
		})
		var s seen
		if err := ReadWholeLog(w.path, s.line); err != nil {
			t.Fatal(err)
		}
	}
	w.end()
	cancel()
	followers.Wait()
	for i := range all {
		if all[i].next != w.lines || all[i].wrong != nil || all[i].gaps == 0 && all[i].text != w.text {
			t.Errorf("a follower came to %+v of %d lines, %d bytes", all[i], w.lines, w.text)
		}
	}
}

func TestARuntimeThatDoesNotReopenLeavesALogThatIsReadAndBounded(t *testing.T) {
	w := newWriter(t)
	w.fail = errors.New("out of order")
	r := NewRotator(w.path, RotatorOptions{Reopen: w.reopen, Head: 1 << 10})
	const limit = 64 << 10
	w.write(limit / 4 / 40)
	_, err := r.Keep(t.Context(), limit)
	if !errors.Is(err, w.fail) || errors.Is(err, ErrLogFull) {
		t.Fatalf("got %v", err)
	}
	w.write(100)
	if _, err := r.Keep(t.Context(), limit); err != nil {
		t.Fatalf("said again: %v", err)
	}
	var s seen
	if err := ReadWholeLog(w.path, s.line); err != nil || s.next != w.lines || s.gaps != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	w.write(limit / 40)
	if _, err := r.Keep(t.Context(), limit); !errors.Is(err, ErrLogFull) {
		t.Fatalf("a log of %d bytes: got %v", w.text, err)
	}
	// It comes to its senses.
	w.fail, r.retry = nil, time.Time{}
	if _, err := r.Keep(t.Context(), limit); err != nil {
		t.Fatal(err)
	}
	w.end()
	s = seen{}
	if err := ReadWholeLog(w.path, s.line); err != nil || s.text+s.dropped != w.text || s.next != w.lines {
		t.Fatalf("%+v of %d, %v", s, w.text, err)
	}
}

func TestARotationThatWasInterruptedIsCompleted(t *testing.T) {
	w := newWriter(t)
	w.write(10)
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".new", ".7.100"} { // a cut that was not completed
		appendTo(t, w.path+name, "x")
	}
	w.write(10) // into the file that was moved aside
	r := NewRotator(w.path, RotatorOptions{Reopen: w.reopen})
	if _, err := r.Keep(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	w.write(10)
	w.end()
	for _, name := range []string{".new", ".7.100"} {
		if _, err := os.Lstat(w.path + name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var s seen
	if err := ReadWholeLog(w.path, s.line); err != nil || s.next != w.lines || s.gaps != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestACutThatWasInterruptedCountsNothingTwice(t *testing.T) {
	w := newWriter(t)
	r := NewRotator(w.path, RotatorOptions{Reopen: w.reopen, Head: 512})
	const limit = 16 << 10
	for range 50 {
		w.write(40)
		if _, err := r.Keep(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
	}
	// The files that were taken away come back, as if they had not been removed.
	c, err := r.files.cut()
	if err != nil || c.Next < 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	appendTo(t, r.files.rotated(c.Next-1, 0), record("stdout", "F", "gone"))
	again := NewRotator(w.path, RotatorOptions{Reopen: w.reopen, Head: 512})
	if _, err := again.Keep(t.Context(), limit); err != nil {
		t.Fatal(err)
	}
	w.end()
	var s seen
	if err := ReadWholeLog(w.path, s.line); err != nil || s.text+s.dropped != w.text || s.next != w.lines {
		t.Fatalf("%+v of %d bytes, %d lines, %v", s, w.text, w.lines, err)
	}
}
