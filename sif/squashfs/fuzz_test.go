package squashfs

import (
	"bytes"
	"context"
	"io"
	"testing"
)

// tight limits keep one input of a fuzzer cheap; two workers keep the order in play.
var tight = Options{Workers: 2, MaxEntries: 300, MaxBytes: 4 << 20, MaxDepth: 20, MetadataCache: 1, FragmentCache: 1, ReadAhead: 1}

func check(t *testing.T, err error) {
	t.Helper()
	if !expected(err) {
		t.Fatalf("unexpected kind of error: %v", err)
	}
}

// FuzzSuperblock reads an image under any superblock.
func FuzzSuperblock(f *testing.F) {
	c := &craft{data: []byte("hello")}
	it := c.file(2, superblockSize, noFragment, 0, 5, 5|blockUncompressed)
	c.root = c.dir(1, listing(named{"f", it, typeFile}))
	rest := c.image()
	f.Add(rest[:superblockSize])
	for _, img := range samples(f) {
		f.Add(img[:superblockSize])
	}
	f.Fuzz(func(t *testing.T, super []byte) {
		if _, err := parseSuperblock(super, int64(len(rest))); err == nil && len(super) < superblockSize {
			t.Fatal("accepted a short superblock")
		}
		img := bytes.Clone(rest)
		copy(img[:superblockSize], super)
		check(t, readAll(img, tight))
	})
}

// FuzzMetadata reads a chain of metadata blocks, compressed with gzip.
func FuzzMetadata(f *testing.F) {
	gzip := samples(f)["testdata/gzip.squashfs"]
	f.Add(gzip[superblockSize:], uint16(0))
	f.Add(gzip[le.Uint64(gzip[64:]):], uint16(3))
	f.Add(gzip[le.Uint64(gzip[72:]):], uint16(0))
	f.Add(stored(bytes.Repeat([]byte("metadata"), 3000)), uint16(8190))
	f.Fuzz(func(t *testing.T, chain []byte, off uint16) {
		fs := &FS{r: bytes.NewReader(chain), opts: tight.withDefaults()}
		fs.super.bytesUsed = int64(len(chain))
		if err := fs.codecs.init(Gzip, 4096); err != nil {
			t.Fatal(err)
		}
		fs.meta.init(1)
		m, err := fs.metaAt(0, int(off), "the chain")
		if err != nil {
			check(t, err)
			return
		}
		var scratch [100]byte
		for n := 0; err == nil; n = (n + 7) % len(scratch) {
			if _, err = m.take(n, scratch[:]); err == nil {
				err = m.skip(int64(n))
			}
		}
		check(t, err)
	})
}

// FuzzDirectory takes any bytes for the directory table.
func FuzzDirectory(f *testing.F) {
	for _, l := range [][]byte{
		listing(named{"a", 0, typeFile}, named{"b", 32, typeDir}, named{"c", 72, typeFifo}),
		listing(named{"..", 0, typeFile}), listing(named{"a", 0, typeFile}, named{"a", 0, typeFile}), {},
	} {
		f.Add(l, uint16(len(l)+3))
	}
	f.Fuzz(func(t *testing.T, dirs []byte, size uint16) {
		c := &craft{}
		c.file(2, 0, noFragment, 0, 0)         // at 0
		c.dirAt(3, 0, 0)                       // at 32
		c.inode(typeFifo, 0o644, 4, uint32(1)) // at 72
		c.dirAt(5, 0, int(size)/2)             // at 92
		c.root = c.dirAt(1, 0, int(size)-3)    // at 132
		c.dirs = dirs
		img := c.image()
		fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), tight)
		if err != nil {
			t.Fatal(err)
		}
		last := ""
		check(t, fs.Walk(context.Background(), func(e *Entry) error {
			if e.Path == last || bytes.Contains([]byte("/"+e.Path+"/"), []byte("/../")) || bytes.IndexByte([]byte(e.Path), 0) >= 0 {
				t.Fatalf("path %q behind %q", e.Path, last)
			}
			last = e.Path
			return nil
		}))
	})
}

// FuzzInode takes any bytes for the inode table.
func FuzzInode(f *testing.F) {
	c := &craft{}
	c.dirAt(2, 0, 0)
	c.inode(typeSymlink, 0o777, 2, uint32(1), uint32(3), "abc")
	c.file(2, superblockSize, 0, 0, 5000, 50)
	f.Add(c.inodes, uint16(0))
	f.Add(c.inodes, uint16(40))
	f.Add(c.inodes, uint16(67))
	f.Fuzz(func(t *testing.T, inodes []byte, root uint16) {
		c := &craft{inodes: inodes, root: uint64(root), data: make([]byte, 200)}
		c.frags = raw(nil, uint64(superblockSize), uint32(100|blockUncompressed), uint32(0))
		c.dirs = listing(named{"a", 0, typeFile}, named{"b", 40, typeSymlink}, named{"c", 67, typeFile})
		check(t, readAll(c.image(), tight))
	})
}

// FuzzXattr takes any bytes for the extended attributes.
func FuzzXattr(f *testing.F) {
	f.Add(raw(nil, uint16(0), uint16(1), "a", uint32(3), "abc", uint16(xattrOutOfLine|1), uint16(1), "b", uint32(8), uint64(5)))
	f.Add(raw(nil, uint16(2), uint16(10), "capability", uint32(20), make([]byte, 20), uint16(0), uint16(1), "x", uint32(0)))
	f.Fuzz(func(t *testing.T, xattrs []byte) {
		c := &craft{xattrs: append(xattrs, 0)}
		ref := c.inode(typeFifo+extended, 0o644, 2, uint32(1), uint32(0))
		c.root = c.dir(1, listing(named{"it", ref, typeFifo}))
		check(t, readAll(c.image(), tight))
	})
}

// FuzzImage takes any bytes for an image.
func FuzzImage(f *testing.F) {
	for _, img := range samples(f) {
		f.Add(img)
	}
	f.Fuzz(func(t *testing.T, img []byte) {
		check(t, readAll(img, tight))
		fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), tight)
		if err != nil {
			return
		}
		var paths []string
		if fs.Walk(context.Background(), func(e *Entry) error { paths = append(paths, e.Path); return nil }) != nil {
			return
		}
		for _, p := range paths { // what Walk lists, Lookup finds
			e, err := fs.Lookup(context.Background(), p)
			if err != nil {
				t.Fatalf("%q: %v", p, err)
			}
			if e.Mode.IsRegular() {
				_, err = fs.WriteFile(context.Background(), e, io.Discard)
				check(t, err)
			}
		}
	})
}
