package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// ErrDamaged: the file is not a ledger any more. It can be set aside.
var ErrDamaged = errors.New("the ledger is damaged")

// check reads the whole file before it is opened for writing: bbolt meets damage
// with a panic, when it opens a file also in a goroutine where nobody can catch
// it. One that does not exist or that another process holds is not damaged.
func check(path string) (err error) {
	defer damaged(&err)()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil // a crash came before its first page
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrLocked
	case errors.Is(err, fs.ErrPermission):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		version, err := schemaOf(tx)
		if err != nil {
			return err
		}
		open, listed, found := tx.Bucket(bucketOpen), 0, 0
		if version > 1 && open == nil {
			return fmt.Errorf("%w: it has no list of open runs", ErrDamaged)
		}
		err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			var last []byte
			return b.ForEach(func(k, v []byte) error {
				if last != nil && bytes.Compare(last, k) >= 0 {
					return fmt.Errorf("%w: its keys are out of order", ErrDamaged)
				}
				last = bytes.Clone(k)
				if bytes.Equal(name, bucketOpen) {
					listed++
				}
				if !bytes.Equal(name, bucketRuns) {
					return nil
				}
				if len(k) != 8 {
					return fmt.Errorf("%w: %x is no run", ErrDamaged, k)
				}
				id := int64(binary.BigEndian.Uint64(k))
				r, err := decode(id, v)
				if err != nil || r.RunID != id {
					return fmt.Errorf("%w: the record of run %d cannot be read", ErrDamaged, id)
				}
				if open == nil {
					return nil
				}
				if (r.State != Done) != (open.Get(k) != nil) {
					return fmt.Errorf("%w: its list of open runs is wrong about run %d", ErrDamaged, id)
				}
				if r.State != Done {
					found++
				}
				return nil
			})
		})
		if err == nil && listed != found {
			err = fmt.Errorf("%w: it lists %d open runs and has %d", ErrDamaged, listed, found)
		}
		return err
	})
}

// damaged makes ErrDamaged of a panic by the function that it returns, to be
// deferred, also of a fault of memory: a file that is too short for its pages.
func damaged(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}
}

// diskError is an error of bbolt with its cause, of which bbolt mostly passes on
// only the words.
type diskError struct {
	error
	cause unix.Errno
}

func (e *diskError) Unwrap() []error { return []error{e.error, e.cause} }

func withCause(err error) error {
	for _, cause := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if err != nil && !errors.Is(err, cause) && strings.HasSuffix(err.Error(), cause.Error()) {
			return &diskError{err, cause}
		}
	}
	return err
}

// SetAside moves a damaged ledger out of the way and returns where it is now.
func SetAside(path string) (string, error) {
	to := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(path, to); err != nil {
		return "", fmt.Errorf("set the damaged ledger aside: %w", err)
	}
	return to, nil
}
