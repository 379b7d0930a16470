package ledger

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// schemaOne writes a file as the version did that had no list of open runs.
func schemaOne(t *testing.T, records ...Record) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		runs, err := tx.CreateBucket(bucketRuns)
		if err != nil {
			return err
		}
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		for _, r := range records {
			value, err := json.Marshal(r)
			if err := errors.Join(err, runs.Put(key(r.RunID), value)); err != nil {
				return err
			}
		}
		return meta.Put(keySchema, binary.BigEndian.AppendUint32(nil, 1))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAnOlderLedgerIsCopiedAndUpgraded(t *testing.T) {
	path := schemaOne(t, Record{RunID: 1, State: Done}, Record{RunID: 2, State: Running}, Record{RunID: 3, State: Exited})
	l := open(t, path)
	unfinished, err := l.Unfinished()
	if err != nil || len(unfinished) != 2 || unfinished[0].RunID != 2 || unfinished[1].RunID != 3 {
		t.Errorf("unfinished after the upgrade: %v, %v", unfinished, err)
	}
	if version, err := l.schema(); err != nil || version != schemaVersion {
		t.Errorf("schema %d, %v", version, err)
	}
	if l.Backup() != path+".schema-1" {
		t.Fatalf("the backup is %q", l.Backup())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(l.Backup()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info.Mode(), err)
	}
	// The backup is what was there: an upgrade of it comes out the same.
	again := open(t, l.Backup())
	if unfinished, err := again.Unfinished(); err != nil || len(unfinished) != 2 || again.Backup() == "" {
		t.Errorf("the backup has %d unfinished runs, %v", len(unfinished), err)
	}
	if l := open(t, path); l.Backup() != "" {
		t.Errorf("it is upgraded again, with a backup at %s", l.Backup())
	}
}

func TestWithoutABackupNothingIsUpgraded(t *testing.T) {
	path := schemaOne(t, Record{RunID: 1, State: Running})
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Something is in the way of the copy.
	if err := os.MkdirAll(filepath.Join(path+".schema-1", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "keep a copy") || errors.Is(err, ErrDamaged) {
		t.Errorf("opened all the same: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed (%v)", err)
	}
}

func TestANewerLedgerIsRefused(t *testing.T) {
	path := schemaOne(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucket(bucketOpen); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint32(nil, schemaVersion+1))
	}), db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "use the v6node that wrote it") || errors.Is(err, ErrDamaged) {
		t.Errorf("a newer ledger: %v", err)
	}
}

func TestAWrongListOfOpenRunsIsDamage(t *testing.T) {
	for name, change := range map[string]func(*bbolt.Bucket) error{
		"one is missing":         func(b *bbolt.Bucket) error { return b.Delete(key(2)) },
		"one is over":            func(b *bbolt.Bucket) error { return b.Put(key(1), isOpen) },
		"one was never heard of": func(b *bbolt.Bucket) error { return b.Put(key(9), isOpen) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			l := open(t, path)
			if _, err := l.InsertNew([]*Record{{RunID: 1, State: Done}, {RunID: 2, State: Running}}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(l.db.Update(func(tx *bbolt.Tx) error { return change(tx.Bucket(bucketOpen)) }), l.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); !errors.Is(err, ErrDamaged) {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

func TestUnfinishedFollowsTheState(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	if err := l.Insert(&Record{RunID: 1, State: Received}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		state State
		want  int
	}{{Running, 1}, {Done, 0}, {Received, 1}, {Done, 0}} {
		if _, err := l.Update(1, func(r *Record) error { r.State = c.state; return nil }); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Unfinished(); err != nil || len(got) != c.want {
			t.Errorf("%s: %d unfinished, %v", c.state, len(got), err)
		}
	}
}
