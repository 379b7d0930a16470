package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// following is a FollowLog under way.
type following struct {
	lines  chan gotLine
	next   chan LogPos
	done   chan error
	cancel context.CancelFunc
}

func follow(t testing.TB, f *Follower, path string, from LogPos) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g := &following{lines: make(chan gotLine, 1<<18), next: make(chan LogPos, 1<<18), done: make(chan error, 1), cancel: cancel}
	fn := func(l LogLine, next LogPos) error {
		g.lines <- gotLine{l.Stream, string(l.Text), l.Partial}
		g.next <- next
		return nil
	}
	go func() {
		if f == nil {
			g.done <- FollowLog(ctx, path, from, fn)
		} else {
			g.done <- f.Follow(ctx, path, from, fn)
		}
	}()
	t.Cleanup(cancel)
	return g
}

func (g *following) want(t testing.TB, texts ...string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for _, want := range texts {
		select {
		case l := <-g.lines:
			if l.text != want {
				t.Fatalf("got the line %q, want %q", l.text, want)
			}
		case err := <-g.done:
			t.Fatalf("ended (%v) instead of %q", err, want)
		case <-timeout:
			t.Fatalf("timed out waiting for %q", want)
		}
	}
}

// ended returns what the following returned.
func (g *following) ended(t testing.TB) error {
	t.Helper()
	select {
	case err := <-g.done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("timed out waiting for the end of FollowLog")
		return nil
	}
}

// end ends the following and returns what came at the last.
func (g *following) end(t testing.TB) []string {
	t.Helper()
	g.cancel()
	if err := g.ended(t); err != nil {
		t.Fatalf("FollowLog: %v", err)
	}
	var rest []string
	for len(g.lines) > 0 {
		rest = append(rest, (<-g.lines).text)
	}
	return rest
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestFollowLogHandsOnLinesAsTheyCome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	g := follow(t, nil, path, LogPos{}) // the file does not exist yet
	for i := range 20 {
		text := fmt.Sprint("line ", i)
		appendTo(t, path, record("stdout", "F", text))
		g.want(t, text)
	}
	if rest := g.end(t); len(rest) != 0 {
		t.Errorf("got %q at the end", rest)
	}
}

func TestFollowLogGoesOnWhereItWasToldTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	appendTo(t, path, record("stdout", "F", "a"))
	g := follow(t, nil, path, LogPos{})
	g.want(t, "a")
	next := <-g.next
	g.end(t)
	appendTo(t, path, record("stdout", "F", "b"))
	g = follow(t, nil, path, next)
	g.want(t, "b")
	g.end(t)
}

func TestTheEndOfTheContextDrainsTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	const n = 100_000
	var all strings.Builder
	for i := range n {
		all.WriteString(record("stdout", "F", fmt.Sprint(i)))
	}
	all.WriteString(record("stdout", "P", "tail"))
	appendTo(t, path, all.String())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	count, last := 0, LogLine{}
	err := FollowLog(ctx, path, LogPos{}, func(l LogLine, _ LogPos) error {
		count++
		last = LogLine{Text: slices.Clone(l.Text), Partial: l.Partial}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count != n+1 || string(last.Text) != "tail" || !last.Partial {
		t.Errorf("%d lines, the last %q", count, last.Text)
	}
}

func TestFollowLogStartsAgainWhenTheFileIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	appendTo(t, path, record("stdout", "F", "long line before"))
	g := follow(t, nil, path, LogPos{})
	g.want(t, "long line before")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, record("stdout", "F", "x"))
	g.want(t, "x")
	g.end(t)
}

func TestFollowLogWaitsForTheRestOfARecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	g := follow(t, nil, path, LogPos{})
	appendTo(t, path, stamp+" stdo")
	appendTo(t, path, "ut F ab")
	appendTo(t, path, "c\n")
	g.want(t, "abc")
	g.end(t)
}

func TestAnErrorOfTheCallbackEndsFollowing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	appendTo(t, path, record("stdout", "F", "x"))
	stop := errors.New("stop")
	if err := FollowLog(t.Context(), path, LogPos{}, func(LogLine, LogPos) error { return stop }); err != stop {
		t.Fatalf("got %v", err)
	}
}

func TestFollowLogSaysWhatItCannotFollow(t *testing.T) {
	dir := t.TempDir()
	nothing := func(LogLine, LogPos) error { return nil }
	if err := FollowLog(t.Context(), filepath.Join(dir, "none", "0.log"), LogPos{}, nothing); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing directory: got %v", err)
	}
	link := filepath.Join(dir, "link.log")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	if err := FollowLog(t.Context(), link, LogPos{}, nothing); err == nil {
		t.Error("a symbolic link was followed")
	}
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(sub, "0.log")
	appendTo(t, path, record("stdout", "F", "x"))
	g := follow(t, nil, path, LogPos{})
	g.want(t, "x")
	if err := os.RemoveAll(sub); err != nil {
		t.Fatal(err)
	}
	if err := g.ended(t); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed directory: got %v", err)
	}
}

func TestOneFollowerServesManyLogs(t *testing.T) {
	f, err := NewFollower()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	var all []*following
	var paths []string
	for i := range 50 {
		sub := filepath.Join(dir, fmt.Sprint(i/2)) // two in a directory
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(sub, fmt.Sprint(i, ".log"))
		paths = append(paths, path)
		all = append(all, follow(t, f, path, LogPos{}))
	}
	for i, g := range all {
		appendTo(t, paths[i], record("stdout", "F", fmt.Sprint(i)))
		g.want(t, fmt.Sprint(i))
	}
	for _, g := range all[1:] {
		g.end(t)
	}
	f.mu.Lock()
	if len(f.dirs) != 1 {
		t.Errorf("%d directories are still watched", len(f.dirs))
	}
	f.mu.Unlock()
	f.Close()
	if err := all[0].ended(t); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestManyLinesWrittenWhileFollowingAllArrive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	g := follow(t, nil, path, LogPos{})
	const n = 100_000
	w, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	written := make(chan error, 1)
	go func() {
		for i := range n {
			if _, err := w.WriteString(record("stdout", "F", fmt.Sprint(i))); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for i := range n {
		g.want(t, fmt.Sprint(i))
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	g.end(t)
}
