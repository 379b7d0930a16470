package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// schemaVersion is that of the files that this version writes:
//
//	1  bucket runs: the records; bucket meta
//	2  bucket open: the keys of the records that are not Done
const schemaVersion = 2

// upgrades take a file from the version that is the key to the next.
var upgrades = map[uint32]func(*bbolt.Tx) error{1: listOpen}

// listOpen makes the bucket of the records that are not Done.
func listOpen(tx *bbolt.Tx) error {
	open, err := tx.CreateBucketIfNotExists(bucketOpen)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketRuns).ForEach(func(k, v []byte) error {
		r, err := decode(int64(binary.BigEndian.Uint64(k)), v)
		if err != nil || r.State == Done {
			return err
		}
		return open.Put(k, isOpen)
	})
}

// initialise makes of an empty file a ledger, and of an older one one of this
// version, in one transaction and after a copy of it was made.
func (l *Ledger) initialise(path string) error {
	have, err := l.schema()
	if err != nil {
		return err
	}
	if have > schemaVersion {
		return fmt.Errorf("its schema is %d and this version reads %d: use the v6node that wrote it, or move the file away", have, schemaVersion)
	}
	if have > 0 && have < schemaVersion {
		if l.backup, err = l.backUp(path, have); err != nil {
			return fmt.Errorf("keep a copy of it before its schema is changed from %d to %d: %w: make room beside it", have, schemaVersion, err)
		}
	}
	if have == schemaVersion {
		return nil
	}
	return l.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketRuns, bucketMeta, bucketOpen} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		for v := have; v > 0 && v < schemaVersion; v++ {
			if err := upgrades[v](tx); err != nil {
				return fmt.Errorf("change its schema from %d to %d: %w", v, v+1, err)
			}
		}
		return tx.Bucket(bucketMeta).Put(keySchema, binary.BigEndian.AppendUint32(nil, schemaVersion))
	})
}

// schema is the file's version, 0 of an empty file.
func (l *Ledger) schema() (version uint32, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		version, err = schemaOf(tx)
		return err
	})
	return version, err
}

func schemaOf(tx *bbolt.Tx) (uint32, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return 0, nil
	}
	switch have := meta.Get(keySchema); {
	case have == nil:
		return 0, nil
	case len(have) != 4 || binary.BigEndian.Uint32(have) == 0:
		return 0, fmt.Errorf("%w: its schema is %x", ErrDamaged, have)
	default:
		return binary.BigEndian.Uint32(have), nil
	}
}

// backUp copies the file as it is and returns where to.
func (l *Ledger) backUp(path string, version uint32) (to string, err error) {
	to = fmt.Sprintf("%s.schema-%d", path, version)
	half := to + ".new"
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(half))
		}
	}()
	f, err := os.OpenFile(half, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	err = l.db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(f)
		return err
	})
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	return to, os.Rename(half, to)
}

// Backup is where Open has left a copy of the file because it changed its
// schema, "" where it did not.
func (l *Ledger) Backup() string { return l.backup }
