package squashfs

import (
	"bytes"
	"encoding/binary"
)

const (
	maxName        = 256
	maxDirHeader   = 256 // entries behind one header
	dirHeaderSize  = 12
	dirEntrySize   = 8
	unstoredInSize = 3 // what "." and ".." count in the size of a listing
)

// dirReader reads one directory's listing. The format demands that names ascend;
// holding an image to that gives the fixed order, finds duplicates, and needs no
// memory that grows with the directory.
type dirReader struct {
	m     metaReader
	left  int64  // bytes of the listing
	run   uint32 // entries behind the current header
	block uint32 // the inodes of these entries: block in the inode table
	last  []byte // the name read last
	name  [maxName]byte
}

// dirEntry is one name in a directory.
type dirEntry struct {
	name string
	ref  uint64
	kind uint16 // a basic type
}

func (f *FS) openDir(n *inode) (*dirReader, error) {
	d := &dirReader{left: int64(n.dirSize) - unstoredInSize}
	if d.left <= 0 {
		d.left = 0
		return d, nil
	}
	m, err := f.metaAt(f.super.dirTable+int64(n.dirBlock), int(n.dirOffset), "the directory table")
	if err != nil {
		return nil, err
	}
	d.m = m
	return d, nil
}

// next gives the next entry; ok is false behind the last one.
func (d *dirReader) next(path string) (e dirEntry, ok bool, err error) {
	le := binary.LittleEndian
	var scratch [dirHeaderSize]byte
	if d.run == 0 {
		if d.left == 0 {
			return dirEntry{}, false, nil
		}
		if d.left < dirHeaderSize {
			return dirEntry{}, false, corrupt("directory %q: %d bytes where a header should be", path, d.left)
		}
		b, err := d.m.take(dirHeaderSize, scratch[:])
		if err != nil {
			return dirEntry{}, false, err
		}
		d.left -= dirHeaderSize
		count := le.Uint32(b)
		if count >= maxDirHeader {
			return dirEntry{}, false, corrupt("directory %q: a header for %d entries", path, uint64(count)+1)
		}
		d.run, d.block = count+1, le.Uint32(b[4:])
	}
	b, err := d.m.take(dirEntrySize, scratch[:])
	if err != nil {
		return dirEntry{}, false, err
	}
	e.ref = uint64(d.block)<<16 | uint64(le.Uint16(b))
	e.kind = le.Uint16(b[4:])
	size := int(le.Uint16(b[6:])) + 1
	if size > maxName {
		return dirEntry{}, false, corrupt("directory %q: a name of %d bytes", path, size)
	}
	d.run--
	if d.left -= dirEntrySize + int64(size); d.left < 0 {
		return dirEntry{}, false, corrupt("directory %q: its last entry is cut off", path)
	}
	var room [maxName]byte
	name, err := d.m.take(size, room[:])
	if err != nil {
		return dirEntry{}, false, err
	}
	if err := checkName(name, path); err != nil {
		return dirEntry{}, false, err
	}
	switch c := bytes.Compare(name, d.last); {
	case c == 0:
		return dirEntry{}, false, corrupt("directory %q: the name %q occurs twice", path, name)
	case c < 0:
		return dirEntry{}, false, corrupt("directory %q: names are not sorted (%q behind %q)", path, name, d.last)
	}
	d.last = d.name[:copy(d.name[:], name)]
	e.name = string(name)
	return e, true, nil
}

// checkName refuses what could lead out of the directory or is no name at all.
func checkName(name []byte, path string) error {
	switch {
	case len(name) == 0:
		return corrupt("directory %q: an empty name", path)
	case string(name) == "." || string(name) == "..":
		return corrupt("directory %q: an entry named %q", path, name)
	case bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0:
		return corrupt("directory %q: the name %q has a slash or a NUL byte", path, name)
	}
	return nil
}
