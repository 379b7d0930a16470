package ledger

import (
	"encoding/binary"

	"go.etcd.io/bbolt"
)

// Page returns up to limit records with a run id below the given one, the
// highest first; 0 begins at the highest of all. No transaction stays open.
func (l *Ledger) Page(below int64, limit int) ([]*Record, error) {
	var out []*Record
	err := l.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketRuns).Cursor()
		last := func() ([]byte, []byte) {
			if k, _ := c.Seek(key(below)); below > 0 && k != nil {
				return c.Prev()
			}
			return c.Last()
		}
		for k, v := last(); k != nil && len(out) < limit; k, v = c.Prev() {
			r, err := decode(int64(binary.BigEndian.Uint64(k)), v)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	return out, err
}
