package audit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestALogGoesOnWhenAFullDiskHasRoomAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system is mounted, which needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,nr_inodes=5"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	l := open(t, dir, Options{FileBytes: 4000})
	entry := Entry{Event: Decided, Reason: strings.Repeat("x", 3000)}
	appended := uint64(0)
	full := error(nil)
	for full == nil { // first the inodes end, in a rotation, later the blocks
		if full = l.Append(entry); full == nil {
			appended++
		}
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Fatal(full)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=32k,nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	for full = nil; full == nil; {
		if full = l.Append(entry); full == nil {
			appended++
		}
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Fatal(full)
	}
	if r := verified(t, dir, nil); r.Entries != appended {
		t.Errorf("%d entries, and %d were promised", r.Entries, appended)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m,nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := l.Append(entry); err != nil {
			t.Fatal(err)
		}
		appended++
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir, nil); r.Entries != appended {
		t.Errorf("%d entries, and %d were promised", r.Entries, appended)
	}
}

// TestWhatIsTakenBackWasNotPromised: after a failed sync nobody knows what the
// disk has, so those who wrote last are told that they failed.
func TestWhatIsTakenBackWasNotPromised(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	if err := l.Append(Entry{Event: Decided}); err != nil {
		t.Fatal(err)
	}
	seq, taken, err := l.write(Entry{Event: Ended})
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("the disk failed")
	l.mu.Lock()
	err = l.takeBack(failed)
	l.mu.Unlock()
	if !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if err := l.Append(Entry{Event: Delivered}); err != nil {
		t.Fatal(err)
	}
	if err := l.flush(seq, taken); !errors.Is(err, failed) {
		t.Errorf("an entry that was taken back counts as written: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir, nil); r.Entries != 2 {
		t.Errorf("%d entries", r.Entries)
	}
}

// long makes a chain of more than Open looks at.
func long(t *testing.T, dir string) (entries int) {
	t.Helper()
	l := open(t, dir, Options{})
	for l.size < 3*tailBytes {
		if _, _, err := l.write(Entry{Event: Decided, Reason: strings.Repeat("x", 3000), Run: int64(entries + 1)}); err != nil {
			t.Fatal(err)
		}
		entries++
	}
	if err := errors.Join(l.Append(Entry{Event: NodeStopped}), l.Close()); err != nil {
		t.Fatal(err)
	}
	return entries + 1
}

func TestAStartReadsTheEndAndExamineTheRest(t *testing.T) {
	dir := t.TempDir()
	n := long(t, dir)
	l := open(t, dir, Options{})
	damage, err := l.Examine(t.Context())
	if err := errors.Join(damage, err, l.Append(Entry{Event: NodeStarted}), l.Close()); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir, nil); r.Entries != uint64(n)+1 {
		t.Errorf("%d entries, want %d", r.Entries, n+1)
	}

	edit(func(lines []string) []string {
		lines[4] = strings.Replace(lines[4], `"run":5`, `"run":6`, 1)
		return lines
	})(t, dir)
	l = open(t, dir, Options{}) // does not see it
	damage, err = l.Examine(t.Context())
	var d *Damage
	if !errors.As(damage, &d) || d.Line != 5 || err != nil {
		t.Errorf("the damage is %v, error %v", damage, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName(1)))
	if err != nil || !strings.Contains(string(b[len(b)-1000:]), `"event":"damaged"`) {
		t.Errorf("the damage is not on record (%v)", err)
	}
}

func TestDamageAtTheEndOfALongFileIsLocated(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]string) []string
		line   func(n int) int
	}{
		"changed": {func(l []string) []string {
			i := len(l) - 4
			l[i] = strings.Replace(l[i], `"event":"decided"`, `"event":"ended"`, 1)
			return l
		}, func(n int) int { return n - 3 }},
		"cut off": {func(l []string) []string { return l[:len(l)-2] }, func(n int) int { return n - 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := long(t, dir)
			edit(c.change)(t, dir)
			l, damage, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck // nothing was asked of it
			var d *Damage
			if !errors.As(damage, &d) || d.Line != c.line(n) {
				t.Errorf("the damage is %v, want line %d of %d", damage, c.line(n), n)
			}
		})
	}
}
