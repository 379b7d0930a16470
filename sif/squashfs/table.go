package squashfs

import (
	"encoding/binary"
)

// table is an array of fixed-size records, held in metadata blocks whose places
// are listed uncompressed at start.
type table struct {
	fs    *FS
	start int64
	count int64
	width int // of a record; divides a metadata block
	what  string
}

// record copies record i into b, which is width bytes long.
func (t *table) record(i int64, b []byte) error {
	if i < 0 || i >= t.count {
		return corrupt("%s: entry %d of %d", t.what, i, t.count)
	}
	per := int64(metaBlockSize / t.width)
	pos, err := t.block(i / per)
	if err != nil {
		return err
	}
	m, err := t.fs.metaAt(pos, int(i%per)*t.width, t.what)
	if err != nil {
		return err
	}
	if len(m.data) < t.width {
		return corrupt("%s: entry %d lies outside its block", t.what, i)
	}
	copy(b, m.data[:t.width])
	return nil
}

// block gives the place of the metadata block number i.
func (t *table) block(i int64) (int64, error) {
	var p [8]byte
	if err := t.fs.readAt(p[:], t.start+8*i, t.what); err != nil {
		return 0, err
	}
	pos := binary.LittleEndian.Uint64(p[:])
	if pos >= uint64(t.fs.super.bytesUsed) {
		return 0, corrupt("%s: its block %d lies outside the image (at %d)", t.what, i, pos)
	}
	return int64(pos), nil
}

// readIDs reads all user and group ids, at most 65535 of four bytes.
func (f *FS) readIDs() ([]uint32, error) {
	t := table{fs: f, start: int64(f.super.idTable), count: int64(f.super.ids), width: 4, what: "the table of owners"}
	ids := make([]uint32, f.super.ids)
	const per = metaBlockSize / 4
	for i := 0; i < len(ids); i += per {
		pos, err := t.block(int64(i / per))
		if err != nil {
			return nil, err
		}
		m, err := f.metaAt(pos, 0, t.what)
		if err != nil {
			return nil, err
		}
		n := min(per, len(ids)-i)
		if len(m.data) < 4*n {
			return nil, corrupt("%s is cut off", t.what)
		}
		for k := range n {
			ids[i+k] = binary.LittleEndian.Uint32(m.data[4*k:])
		}
	}
	return ids, nil
}
