package squashfs

import (
	"encoding/binary"
	"slices"
	"strings"
)

// Xattr is one extended attribute. Name has its prefix ("user.", "security.").
type Xattr struct {
	Name  string
	Value []byte
}

const (
	xattrIDSize     = 16
	xattrOutOfLine  = 0x100
	xattrPrefixMask = 0xff
	maxXattrName    = 255
	maxXattrValue   = 64 << 10
)

var xattrPrefixes = [...]string{"user.", "trusted.", "security."}

// xattrTable finds the extended attributes of an inode by the number in it.
type xattrTable struct {
	start int64 // of the attributes themselves
	ids   table
}

// openXattrs reads the header of the table; nil without error when the image has none.
func (f *FS) openXattrs() (*xattrTable, error) {
	if f.super.xattrTable == noTable {
		return nil, nil
	}
	const what = "the table of extended attributes"
	var b [16]byte
	at := int64(f.super.xattrTable)
	if err := f.readAt(b[:], at, what); err != nil {
		return nil, err
	}
	start, count := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint32(b[8:])
	if count > 0 && start >= f.super.xattrTable {
		return nil, corrupt("%s: the attributes lie behind it (at %d, table at %d)", what, start, at)
	}
	return &xattrTable{
		start: int64(start),
		ids:   table{fs: f, start: at + 16, count: int64(count), width: xattrIDSize, what: what},
	}, nil
}

// readXattrs gives the attributes of set id, sorted by name.
func (f *FS) readXattrs(id uint32, path string) ([]Xattr, error) {
	t := f.xattrs
	if t == nil || id == noXattrs {
		return nil, nil
	}
	var rec [xattrIDSize]byte
	if err := t.ids.record(int64(id), rec[:]); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	m, err := f.xattrAt(le.Uint64(rec[:]), path)
	if err != nil {
		return nil, err
	}
	left := f.opts.MaxXattrBytes
	count := le.Uint32(rec[8:])
	var out []Xattr
	var scratch [maxXattrName]byte
	for range count {
		b, err := m.take(4, scratch[:])
		if err != nil {
			return nil, err
		}
		kind, size := le.Uint16(b), int(le.Uint16(b[2:]))
		prefix := int(kind & xattrPrefixMask)
		if prefix >= len(xattrPrefixes) {
			return nil, corrupt("%q: an extended attribute of unknown kind %#x", path, kind)
		}
		if size == 0 || size > maxXattrName {
			return nil, corrupt("%q: an extended attribute whose name has %d bytes", path, size)
		}
		if b, err = m.take(size, scratch[:]); err != nil {
			return nil, err
		}
		x := Xattr{Name: xattrPrefixes[prefix] + string(b)}
		if strings.IndexByte(x.Name, 0) >= 0 {
			return nil, corrupt("%q: the extended attribute %q has a NUL byte in its name", path, x.Name)
		}
		if b, err = m.take(4, scratch[:]); err != nil {
			return nil, err
		}
		from, length := &m, le.Uint32(b)
		var elsewhere metaReader
		if kind&xattrOutOfLine != 0 {
			if length != 8 {
				return nil, corrupt("%q: extended attribute %q: a reference of %d bytes", path, x.Name, length)
			}
			if b, err = m.take(8, scratch[:]); err != nil {
				return nil, err
			}
			if elsewhere, err = f.xattrAt(le.Uint64(b), path); err != nil {
				return nil, err
			}
			from = &elsewhere
			if b, err = from.take(4, scratch[:]); err != nil {
				return nil, err
			}
			length = le.Uint32(b)
		}
		if length > maxXattrValue {
			return nil, corrupt("%q: extended attribute %q has %d bytes", path, x.Name, length)
		}
		if left -= len(x.Name) + int(length); left < 0 {
			return nil, tooMuch("%q: its extended attributes have more than %d bytes", path, f.opts.MaxXattrBytes)
		}
		x.Value = make([]byte, length)
		if err := from.read(x.Value); err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(out); i++ {
		if out[i].Name == out[i-1].Name {
			return nil, corrupt("%q: the extended attribute %q occurs twice", path, out[i].Name)
		}
	}
	return out, nil
}

// xattrAt stands at a reference: block from the start of the attributes << 16 | offset.
func (f *FS) xattrAt(ref uint64, path string) (metaReader, error) {
	block, off := ref>>16, int(ref&0xffff)
	if block >= uint64(f.super.bytesUsed) || off >= metaBlockSize {
		return metaReader{}, corrupt("%q: its extended attributes lie outside the image (block %d, offset %d)", path, block, off)
	}
	return f.metaAt(f.xattrs.start+int64(block), off, "the extended attributes")
}
