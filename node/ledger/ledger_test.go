package ledger

import (
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, path string) *Ledger {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestARecordSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	want := Record{RunID: 7, TaskID: 3, Image: "registry/algo", State: Received, ReceivedAt: time.Now().UTC()}
	if err := l.Insert(&want); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Update(7, func(r *Record) error { r.State = Starting; r.ContainerID = "abc"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path).Get(7)
	if err != nil {
		t.Fatal(err)
	}
	want.State, want.ContainerID = Starting, "abc"
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestARunIsInsertedOnce(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	first := Record{RunID: 1, State: Running}
	if err := l.Insert(&first); err != nil {
		t.Fatal(err)
	}
	if err := l.Insert(&Record{RunID: 1, State: Received}); !errors.Is(err, ErrExists) {
		t.Fatalf("second insert: %v, want ErrExists", err)
	}
	if got, _ := l.Get(1); got.State != Running {
		t.Errorf("the second insert changed the record to %s", got.State)
	}
}

func TestAFailedUpdateChangesNothing(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	if err := l.Insert(&Record{RunID: 1, State: Received}); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if _, err := l.Update(1, func(r *Record) error { r.State = Done; return refused }); !errors.Is(err, refused) {
		t.Fatalf("update: %v", err)
	}
	if got, _ := l.Get(1); got.State != Received {
		t.Errorf("state is %s after a refused update", got.State)
	}
	if _, err := l.Update(2, func(*Record) error { return nil }); !errors.Is(err, ErrNotFound) {
		t.Errorf("update of an unknown run: %v, want ErrNotFound", err)
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	open(t, path)
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
}

func TestConcurrentChangesAreAllKept(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	var wg sync.WaitGroup
	for id := int64(1); id <= 50; id++ {
		wg.Go(func() {
			if err := l.Insert(&Record{RunID: id, State: Received}); err != nil {
				t.Error(err)
				return
			}
			for _, s := range []State{Preparing, Starting, Running, Exited} {
				if _, err := l.Update(id, func(r *Record) error { r.State = s; return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	open, err := l.Unfinished()
	if err != nil || len(open) != 50 {
		t.Fatalf("%d unfinished (%v), want 50", len(open), err)
	}
	for _, r := range open {
		if r.State != Exited {
			t.Errorf("run %d is %s", r.RunID, r.State)
		}
	}
}

func TestOnlyWhatIsDoneIsForgotten(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	for _, r := range []Record{{RunID: 1, State: Done}, {RunID: 2, State: Done}, {RunID: 3, State: Exited}} {
		if err := l.Insert(&r); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := l.Forget([]int64{1, 3, 4}); n != 1 || err != nil {
		t.Fatalf("forgot %d (%v), want 1", n, err)
	}
	for id, want := range map[int64]error{1: ErrNotFound, 2: nil, 3: nil} {
		if _, err := l.Get(id); !errors.Is(err, want) {
			t.Errorf("run %d: %v, want %v", id, err, want)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	l := open(b, filepath.Join(b.TempDir(), "ledger.db"))
	if err := l.Insert(&Record{RunID: 1, State: Received}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := l.Update(1, func(r *Record) error { r.Attempt++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPagesGoDownwardsAndMissNothing(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	for id := int64(1); id <= 7; id++ {
		if err := l.Insert(&Record{RunID: id, State: Received}); err != nil {
			t.Fatal(err)
		}
	}
	var got []int64
	for below := int64(0); ; {
		page, err := l.Page(below, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			got = append(got, r.RunID)
		}
		below = page[len(page)-1].RunID
	}
	if !slices.Equal(got, []int64{7, 6, 5, 4, 3, 2, 1}) {
		t.Errorf("got %v", got)
	}
	if page, err := l.Page(100, 2); err != nil || len(page) != 2 || page[0].RunID != 7 {
		t.Errorf("from beyond the highest: %v, %v", page, err)
	}
}
