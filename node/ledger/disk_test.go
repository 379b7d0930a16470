package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestALedgerGoesOnWhenAFullDiskHasRoomAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system is mounted, which needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the ledgers are closed
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "ledger.db")
	l := open(t, path)
	id := int64(0)
	next := func() error {
		id++
		return l.Insert(&Record{RunID: id, State: Received, Message: strings.Repeat("x", 2000)})
	}
	var full error
	for full == nil {
		full = next()
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Fatalf("not told as a full disk: %v", full)
	}
	kept := id - 1
	if list, err := l.Unfinished(); err != nil || int64(len(list)) != kept {
		t.Errorf("%d of %d runs can be read, %v", len(list), kept, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	id = kept
	for range 20 {
		if err := next(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if list, err := open(t, path).Unfinished(); err != nil || int64(len(list)) != id {
		t.Errorf("%d of %d runs are there after all, %v", len(list), id, err)
	}
}

func TestWhatBboltSaysOfADiskIsUnderstood(t *testing.T) {
	for _, cause := range []unix.Errno{unix.ENOSPC, unix.EROFS, unix.EIO} {
		if err := withCause(errors.New("file resize error: " + cause.Error())); !errors.Is(err, cause) {
			t.Errorf("%v is not %v", err, cause)
		}
	}
	if err := withCause(errors.New("something else")); errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	if err := withCause(nil); err != nil {
		t.Error(err)
	}
}
