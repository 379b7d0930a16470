package ledger

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("run is not in the ledger")
	ErrExists   = errors.New("run is in the ledger already")
	ErrLocked   = errors.New("ledger is in use by another process")
)

const (
	lockWait   = 200 * time.Millisecond
	batchDelay = 500 * time.Microsecond
	// mapped is how much of the file's address space is there from the beginning:
	// bbolt lets go of the file when it has to map more of it and the disk fails.
	mapped = 1 << 30
	// growth is by how much the file grows.
	growth = 64 << 10
)

var (
	bucketRuns = []byte("runs")
	bucketMeta = []byte("meta")
	bucketOpen = []byte("open")
	keySchema  = []byte("schema")
	keyTurns   = []byte("turns")
	isOpen     = []byte{1}
)

// Ledger is one open ledger file. All methods are safe for concurrent use and
// return only after the change is on disk; changes that are asked for at the
// same moment share one disk flush.
type Ledger struct {
	db     *bbolt.DB
	backup string
}

// Open opens or creates the ledger file with mode 0600, after it has read the
// whole of it. It returns ErrLocked when another process holds it, and ErrDamaged
// when it cannot be trusted. A file of an older version is copied and brought to
// this one. The caller closes it.
func Open(path string) (*Ledger, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the ledger's directory: %w", err)
	}
	if err := check(path); err != nil {
		return nil, fmt.Errorf("read the ledger %s: %w", path, err)
	}
	db, err := openForWriting(path)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open the ledger %s: %w", path, err)
	}
	db.MaxBatchDelay, db.AllocSize = batchDelay, growth
	l := &Ledger{db: db}
	if err := l.initialise(path); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the ledger %s: %w", path, err), db.Close())
	}
	return l, nil
}

// openForWriting opens the file. What check could not see of the damage, bbolt
// meets with a panic. The list of free pages stays in the file, since bbolt would
// look for them in a goroutine whose panic nobody can catch.
func openForWriting(path string) (db *bbolt.DB, err error) {
	defer damaged(&err)()
	return bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      lockWait,
		FreelistType: bbolt.FreelistMapType, InitialMmapSize: mapped,
	})
}

// Close releases the file.
func (l *Ledger) Close() error { return l.db.Close() }

// Insert adds a new record, or returns ErrExists and changes nothing.
func (l *Ledger) Insert(r *Record) error {
	added, err := l.InsertNew([]*Record{r})
	if err == nil && !added[r.RunID] {
		err = fmt.Errorf("run %d: %w", r.RunID, ErrExists)
	}
	return err
}

// InsertNew adds those of the records whose runs are not in the ledger yet, all
// in one transaction or none, and returns which these are.
func (l *Ledger) InsertNew(records []*Record) (added map[int64]bool, err error) {
	values := make([][]byte, len(records))
	for i, r := range records {
		if values[i], err = json.Marshal(r); err != nil {
			return nil, fmt.Errorf("encode run %d: %w", r.RunID, err)
		}
	}
	err = l.db.Batch(func(tx *bbolt.Tx) error {
		added = make(map[int64]bool, len(records))
		b := tx.Bucket(bucketRuns)
		for i, r := range records {
			if b.Get(key(r.RunID)) != nil {
				continue
			}
			if err := put(tx, r, values[i]); err != nil {
				return err
			}
			added[r.RunID] = true
		}
		return nil
	})
	if err != nil {
		return nil, withCause(err)
	}
	return added, nil
}

// Update changes a record in one transaction and returns it as stored. An
// error from change leaves the record as it was. change may be called more
// than once and must depend on nothing but its argument.
func (l *Ledger) Update(runID int64, change func(*Record) error) (*Record, error) {
	return l.update(runID, change, func(*bbolt.Tx) error { return nil })
}

// Begin is Update for a run whose turn has come. What turns returns, as JSON,
// is written in the same transaction, in which it is called.
func (l *Ledger) Begin(runID int64, turns func() any, change func(*Record) error) (*Record, error) {
	return l.update(runID, change, func(tx *bbolt.Tx) error {
		value, err := json.Marshal(turns())
		if err != nil {
			return fmt.Errorf("encode the turns: %w", err)
		}
		return tx.Bucket(bucketMeta).Put(keyTurns, value)
	})
}

// Turns decodes what Begin wrote last into v, and leaves v as it is when
// nothing was written yet.
func (l *Ledger) Turns(v any) error {
	return l.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketMeta).Get(keyTurns)
		if value == nil {
			return nil
		}
		if err := json.Unmarshal(value, v); err != nil {
			return fmt.Errorf("the ledger's record of the turns is damaged: %w", err)
		}
		return nil
	})
}

func (l *Ledger) update(runID int64, change func(*Record) error, more func(*bbolt.Tx) error) (*Record, error) {
	var out *Record
	err := l.db.Batch(func(tx *bbolt.Tx) error {
		r, err := decode(runID, tx.Bucket(bucketRuns).Get(key(runID)))
		if err != nil {
			return err
		}
		if err := change(r); err != nil {
			return err
		}
		value, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode run %d: %w", runID, err)
		}
		out = r
		return errors.Join(put(tx, r, value), more(tx))
	})
	if err != nil {
		return nil, withCause(err)
	}
	return out, nil
}

// Get returns one record or ErrNotFound.
func (l *Ledger) Get(runID int64) (*Record, error) {
	var out *Record
	err := l.db.View(func(tx *bbolt.Tx) (err error) {
		out, err = decode(runID, tx.Bucket(bucketRuns).Get(key(runID)))
		return err
	})
	return out, err
}

// Each calls fn for every record in the order of run ids, until fn returns an
// error, which Each returns. fn must not call the ledger.
func (l *Ledger) Each(fn func(*Record) error) error {
	return l.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRuns).ForEach(func(k, v []byte) error {
			r, err := decode(int64(binary.BigEndian.Uint64(k)), v)
			if err != nil {
				return err
			}
			return fn(r)
		})
	})
}

// Unfinished returns the records that are not Done, in the order of run ids.
func (l *Ledger) Unfinished() ([]*Record, error) {
	var out []*Record
	err := l.db.View(func(tx *bbolt.Tx) error {
		runs := tx.Bucket(bucketRuns)
		return tx.Bucket(bucketOpen).ForEach(func(k, _ []byte) error {
			r, err := decode(int64(binary.BigEndian.Uint64(k)), runs.Get(k))
			out = append(out, r)
			return err
		})
	})
	return out, err
}

// put writes a record and whether it is open.
func put(tx *bbolt.Tx, r *Record, value []byte) error {
	k, open := key(r.RunID), tx.Bucket(bucketOpen)
	if err := tx.Bucket(bucketRuns).Put(k, value); err != nil {
		return err
	}
	switch was := open.Get(k) != nil; {
	case was && r.State == Done:
		return open.Delete(k)
	case !was && r.State != Done:
		return open.Put(k, isOpen)
	}
	return nil
}

// Forget removes those of the records that are Done and returns how many. A
// forgotten run that the server offers again would be taken for a new one, so
// callers keep records far longer than a server keeps a finished run open.
func (l *Ledger) Forget(runIDs []int64) (int, error) {
	n := 0
	err := l.db.Update(func(tx *bbolt.Tx) error {
		n = 0
		b := tx.Bucket(bucketRuns)
		for _, id := range runIDs {
			r, err := decode(id, b.Get(key(id)))
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if r.State != Done {
				continue
			}
			if err := b.Delete(key(id)); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, withCause(err)
}

func key(runID int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(runID)) }

func decode(runID int64, value []byte) (*Record, error) {
	if value == nil {
		return nil, fmt.Errorf("run %d: %w", runID, ErrNotFound)
	}
	r := new(Record)
	if err := json.Unmarshal(value, r); err != nil {
		return nil, fmt.Errorf("the ledger's record of run %d is damaged: %w", runID, err)
	}
	return r, nil
}
