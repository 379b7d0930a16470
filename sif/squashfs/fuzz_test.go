package squashfs

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/v6node/v6node/sif/internal/fuzztest"
)

// tight limits keep one input of a fuzzer cheap; two workers keep the order in play.
var tight = Options{Workers: 2, MaxEntries: 300, MaxBytes: 4 << 20, MaxDepth: 20, MaxXattrBytes: 4 << 10, MetadataCache: 1, FragmentCache: 1, ReadAhead: 1}

const (
	// tightMemory is what reading an image within these limits may allocate: buffers of
	// 1 MiB for blocks and fragments, decoders, and a block of metadata for each few entries.
	tightMemory = 96 << 20
	// tightWork is what may be read: the content, and for each entry some metadata and at
	// worst a fragment of its own.
	tightWork = 4<<20 + 300*(1<<20+10*metaBlockSize)
)

func check(t *testing.T, err error) {
	t.Helper()
	if !expected(err) {
		t.Fatalf("unexpected kind of error: %v", err)
	}
}

// readTight reads everything in an image, and holds that to memory and work.
func readTight(t *testing.T, img []byte) {
	t.Helper()
	fuzztest.Bounded(t, tightMemory, func() {
		check(t, readFrom(fuzztest.NewReader(bytes.NewReader(img), tightWork), int64(len(img)), tight))
	})
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
		readTight(t, img)
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
		readTight(t, c.image())
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
		readTight(t, c.image())
	})
}

// FuzzImage takes any bytes for an image. What breaks the format on purpose is a seed too.
func FuzzImage(f *testing.F) {
	for _, img := range samples(f) {
		f.Add(img)
	}
	for _, x := range hostileImages() {
		if img := x.image(); len(img) < 64<<10 {
			f.Add(img)
		}
	}
	f.Fuzz(func(t *testing.T, img []byte) {
		readTight(t, img)
		fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), tight)
		if err != nil {
			return
		}
		var paths []string
		if fs.Walk(context.Background(), func(e *Entry) error { paths = append(paths, e.Path); return nil }) != nil {
			return
		}
		for _, p := range paths[:min(len(paths), 20)] { // what Walk lists, Lookup finds
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

// FuzzBlock decompresses any bytes as one block, with every codec.
func FuzzBlock(f *testing.F) {
	kinds := []Compression{Gzip, LZO, XZ, LZ4, Zstd}
	for i, name := range []string{"gzip", "lzo", "xz", "lz4", "zstd"} {
		img := samples(f)["testdata/"+name+".squashfs"]
		head := le.Uint16(img[le.Uint64(img[64:]):]) // the first block of inodes
		if head&metaUncompressed != 0 {
			f.Fatalf("%s: its inodes are not compressed", name)
		}
		block := img[le.Uint64(img[64:])+2:][:head]
		f.Add(uint8(i), uint16(metaBlockSize), block)
		f.Add(uint8(i), uint16(1), block)
		f.Add(uint8(i), uint16(metaBlockSize), block[:len(block)-1])
	}
	f.Fuzz(func(t *testing.T, kind uint8, room uint16, src []byte) {
		const guard = 64
		buf := bytes.Repeat([]byte{0xa5}, int(room)+guard)
		var c codecs
		fuzztest.Bounded(t, 32<<20, func() {
			if err := c.init(kinds[int(kind)%len(kinds)], 4096); err != nil {
				t.Fatal(err)
			}
			d := c.get()
			before := bytes.Clone(src)
			n, err := d.decode(buf[:room:room], src)
			if err == nil && n > int(room) {
				t.Fatalf("%d bytes in %d", n, room)
			}
			again := make([]byte, room)
			m, err2 := d.decode(again, src) // a decoder is used for block after block
			if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(buf[:n], again[:m]) {
				t.Fatalf("%d bytes, %v; the second time %d bytes, %v", n, err, m, err2)
			}
			if !bytes.Equal(src, before) {
				t.Fatal("the input was changed")
			}
		})
		if !bytes.Equal(buf[room:], bytes.Repeat([]byte{0xa5}, guard)) {
			t.Fatal("wrote past the buffer")
		}
	})
}
