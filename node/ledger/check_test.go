package ledger

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// filled is a ledger file with many runs.
func filled(t testing.TB, runs int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []*Record
	for id := range int64(runs) {
		all = append(all, &Record{RunID: id + 1, TaskID: id, Image: "registry.example/algorithm:1", State: Done, ReceivedAt: time.Now().UTC()})
	}
	if _, err := l.InsertNew(all); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDamageIsFoundBeforeTheLedgerIsUsed(t *testing.T) {
	path := filled(t, 500)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 300 {
		b := append([]byte(nil), whole...)
		switch at := dice.IntN(len(b)); dice.IntN(3) {
		case 0: // the disk lost the end
			b = b[:at]
		case 1: // and a block
			clear(b[at : at+min(4096, len(b)-at)])
		case 2:
			b[at] ^= 1 << dice.IntN(8)
		}
		// Another file: bbolt may not have let go of a damaged one.
		if err := errors.Join(os.Remove(path), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		l, err := Open(path)
		if err == nil {
			// What is not in use may hold anything.
			if err := l.Each(func(*Record) error { return nil }); err != nil {
				t.Fatalf("it was opened, and cannot be read: %v", err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("another error: %v", err)
		}
		found++
	}
	if found < 100 {
		t.Errorf("%d of 300 damages were found", found)
	}
	aside, err := SetAside(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkOpenWithTenThousandRuns(b *testing.B) {
	path := filled(b, 10_000)
	for b.Loop() {
		l, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
