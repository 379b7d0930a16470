package squashfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	iofs "io/fs"
	"testing"
)

// craft builds images that no tool would write. Inodes and listings are appended
// raw; metadata is stored uncompressed.
type craft struct {
	inodes, dirs, frags, xattrs []byte
	data                        []byte // behind the superblock
	root                        uint64
	ids                         int
	xattrSets, xattrCount       int            // sets of attributes, all the same, and how many are in one; 0: 1 and 2
	super                       func(b []byte) // changes the superblock at last
}

var le = binary.LittleEndian

// inode appends an inode and gives its reference. Fields after the header are given
// as they lie in the image: uint16, uint32, uint64 or []byte.
func (c *craft) inode(kind, mode uint16, number uint32, fields ...any) uint64 {
	ref := metaRef(len(c.inodes))
	c.inodes = raw(c.inodes, kind, mode, uint16(0), uint16(0), uint32(1000), number)
	c.inodes = raw(c.inodes, fields...)
	return ref
}

// dir appends an extended directory inode for a listing.
func (c *craft) dir(number uint32, listing []byte) uint64 {
	ref := c.dirAt(number, len(c.dirs), len(listing))
	c.dirs = append(c.dirs, listing...)
	return ref
}

func (c *craft) dirAt(number uint32, at, size int) uint64 {
	p := metaRef(at)
	return c.inode(typeDir+extended, 0o755, number, uint32(2), uint32(size+3), uint32(p>>16), uint32(0), uint16(0), uint16(p), uint32(noXattrs))
}

// file appends a basic file inode.
func (c *craft) file(number uint32, start, fragment, fragOff, size uint32, blocks ...uint32) uint64 {
	ref := c.inode(typeFile, 0o644, number, start, fragment, fragOff, size)
	for _, b := range blocks {
		c.inodes = raw(c.inodes, b)
	}
	return ref
}

func raw(b []byte, fields ...any) []byte {
	for _, f := range fields {
		switch v := f.(type) {
		case uint16:
			b = le.AppendUint16(b, v)
		case uint32:
			b = le.AppendUint32(b, v)
		case uint64:
			b = le.AppendUint64(b, v)
		case []byte:
			b = append(b, v...)
		case string:
			b = append(b, v...)
		}
	}
	return b
}

// metaRef is the reference to a byte of metadata that is stored uncompressed.
func metaRef(at int) uint64 {
	return uint64(at/metaBlockSize*(metaBlockSize+2))<<16 | uint64(at%metaBlockSize)
}

type named struct {
	name string
	ref  uint64
	kind uint16
}

// listing is a directory listing, with a new header wherever the format wants one.
func listing(entries ...named) []byte {
	var b []byte
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && n < maxDirHeader && entries[n].ref>>16 == entries[0].ref>>16 {
			n++
		}
		b = raw(b, uint32(n-1), uint32(entries[0].ref>>16), uint32(0))
		for _, e := range entries[:n] {
			b = raw(b, uint16(e.ref), uint16(0), e.kind, uint16(len(e.name)-1), e.name)
		}
		entries = entries[n:]
	}
	return b
}

func stored(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		n := min(len(b), metaBlockSize)
		out = raw(out, uint16(n|metaUncompressed), b[:n])
		b = b[n:]
	}
	return out
}

// image lays everything out.
func (c *craft) image() []byte {
	out := append(make([]byte, superblockSize), c.data...)
	inodes := len(out)
	out = append(out, stored(append(c.inodes, make([]byte, 64)...))...)
	dirs := len(out)
	out = append(out, stored(append(c.dirs, 0))...)
	at := len(out)
	out = append(out, stored(c.frags)...)
	frags := len(out)
	for i := 0; i < len(c.frags); i += metaBlockSize {
		out = raw(out, uint64(at+i/metaBlockSize*(metaBlockSize+2)))
	}
	at = len(out)
	if c.ids == 0 {
		c.ids = 1
	}
	out = append(out, stored(make([]byte, 4*c.ids))...)
	ids := len(out)
	out = raw(out, uint64(at))
	xattrs := noTable
	if c.xattrs != nil { // the attributes, then one set: all there are
		at = len(out)
		out = append(out, stored(c.xattrs)...)
		set := len(out)
		if c.xattrSets == 0 {
			c.xattrSets, c.xattrCount = 1, 2
		}
		record := raw(nil, uint64(0), uint32(c.xattrCount), uint32(len(c.xattrs)))
		out = append(out, stored(bytes.Repeat(record, c.xattrSets))...)
		xattrs = uint64(len(out))
		out = raw(out, uint64(at), uint32(c.xattrSets), uint32(0), uint64(set))
	}
	s := raw(nil, uint32(magic), uint32(1), uint32(0), uint32(4096), uint32(len(c.frags)/fragmentEntrySize), uint16(Gzip), uint16(12), uint16(0), uint16(c.ids),
		uint16(4), uint16(0), c.root, uint64(len(out)), uint64(ids), xattrs, uint64(inodes), uint64(dirs), uint64(frags), noTable)
	copy(out, s)
	if c.super != nil {
		c.super(out[:superblockSize])
	}
	return out
}

// readAll reads everything in an image.
func readAll(img []byte, o Options) error { return readFrom(bytes.NewReader(img), int64(len(img)), o) }

func readFrom(r io.ReaderAt, size int64, o Options) error {
	fs, err := Open(r, 0, size, o)
	if err != nil {
		return err
	}
	return fs.Stream(context.Background(), func(_ *Entry, c *Content) error {
		if c == nil {
			return nil
		}
		_, err := c.WriteTo(io.Discard)
		return err
	})
}

// named errors are the only ones that an image may cause.
func expected(err error) bool {
	return err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrLimit)
}

func TestACraftedImageReads(t *testing.T) {
	c := &craft{data: []byte("hello")}
	f := c.file(2, superblockSize, noFragment, 0, 5, 5|blockUncompressed)
	c.root = c.dir(1, listing(named{"f", f, typeFile}))
	img := c.image()
	fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := fs.Lookup(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if n, err := fs.WriteFile(t.Context(), e, &b); n != 5 || err != nil || b.String() != "hello" {
		t.Fatalf("%q, %d bytes, error %v", b.String(), n, err)
	}
}

func TestLookupFindsWhatIsThereAndNothingElse(t *testing.T) {
	c := &craft{}
	f := c.file(3, 0, noFragment, 0, 0)
	d := c.dir(2, listing(named{"not UTF-8 \xff", f, typeFile}))
	c.root = c.dir(1, listing(named{"d", d, typeDir}, named{"f", f, typeFile}))
	img := c.image()
	fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{".", "d", "f", "d/not UTF-8 \xff"} {
		if e, err := fs.Lookup(t.Context(), p); err != nil || e.Path != p {
			t.Errorf("%q: %+v, error %v", p, e, err)
		}
	}
	for _, p := range []string{"", "/", "/d", "d/", "d//not UTF-8 \xff", "..", "d/..", "./d", "e", "f/x", "d/f"} {
		if _, err := fs.Lookup(t.Context(), p); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%q: error %v", p, err)
		}
	}
}
