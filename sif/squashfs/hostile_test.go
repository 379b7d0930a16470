package squashfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile is an image that breaks the format, and what must be said of it.
type hostile struct {
	name  string
	make  func(*craft)
	kind  error
	words string
}

func (x hostile) image() []byte {
	c := &craft{data: make([]byte, 200)}
	c.frags = raw(nil, uint64(superblockSize), uint32(100|blockUncompressed), uint32(0))
	x.make(c)
	return c.image()
}

func hostileImages() []hostile {
	const outside = uint32(1 << 30)
	dirOf := func(entries ...named) func(*craft) {
		return func(c *craft) {
			f := c.file(2, 0, noFragment, 0, 0)
			for i := range entries {
				entries[i].ref, entries[i].kind = f, typeFile
			}
			c.root = c.dir(1, listing(entries...))
		}
	}
	with := func(kind uint16, inode func(c *craft) uint64) func(*craft) {
		return func(c *craft) {
			ref := inode(c)
			c.root = c.dir(1, listing(named{"it", ref, kind}))
		}
	}
	file := func(start, fragment, fragOff, size uint32, blocks ...uint32) func(*craft) {
		return with(typeFile, func(c *craft) uint64 { return c.file(2, start, fragment, fragOff, size, blocks...) })
	}
	large := func(start, size uint64, blocks ...uint32) func(*craft) {
		return with(typeFile, func(c *craft) uint64 {
			ref := c.inode(typeFile+extended, 0o644, 2, start, size, uint64(0), uint32(1), uint32(noFragment), uint32(0), uint32(noXattrs))
			for _, b := range blocks {
				c.inodes = raw(c.inodes, b)
			}
			return ref
		})
	}
	link := func(size uint32, target string) func(*craft) {
		return with(typeSymlink, func(c *craft) uint64 { return c.inode(typeSymlink, 0o777, 2, uint32(1), size, target) })
	}
	attrs := func(xattrs []byte, id uint32) func(*craft) {
		return func(c *craft) {
			c.xattrs = xattrs
			with(typeFifo, func(c *craft) uint64 { return c.inode(typeFifo+extended, 0o644, 2, uint32(1), id) })(c)
		}
	}
	return []hostile{
		{"the name ..", dirOf(named{name: ".."}), ErrCorrupt, `".."`},
		{"the name .", dirOf(named{name: "."}), ErrCorrupt, `"."`},
		{"a slash in a name", dirOf(named{name: "a/../../b"}), ErrCorrupt, "slash"},
		{"a NUL byte in a name", dirOf(named{name: "a\x00b"}), ErrCorrupt, "NUL"},
		{"a name twice", dirOf(named{name: "a"}, named{name: "a"}), ErrCorrupt, "twice"},
		{"names out of order", dirOf(named{name: "b"}, named{name: "a"}), ErrCorrupt, "not sorted"},
		{"a name of 300 bytes", dirOf(named{name: strings.Repeat("n", 300)}), ErrCorrupt, "300 bytes"},
		{"a directory that holds itself", func(c *craft) {
			at := metaRef(len(c.inodes))
			c.root = c.dir(1, listing(named{"loop", at, typeDir}))
		}, ErrCorrupt, "another path"},
		{"a directory on two paths", func(c *craft) {
			d := c.dir(2, nil)
			c.root = c.dir(1, listing(named{"a", d, typeDir}, named{"b", d, typeDir}))
		}, ErrCorrupt, "another path"},
		{"too many directories in each other", func(c *craft) {
			ref := c.dir(5000, nil)
			for i := range 1100 {
				ref = c.dir(uint32(i+2), listing(named{"d", ref, typeDir}))
			}
			c.root = ref
		}, ErrLimit, "deep"},
		{"too long a path", func(c *craft) {
			ref := c.dir(5000, nil)
			for i := range 30 {
				ref = c.dir(uint32(i+2), listing(named{strings.Repeat("d", 200), ref, typeDir}))
			}
			c.root = ref
		}, ErrLimit, "path"},
		{"a header for too many entries", func(c *craft) {
			c.root = c.dir(1, raw(nil, uint32(256), uint32(0), uint32(0), make([]byte, 100)))
		}, ErrCorrupt, "257 entries"},
		{"a listing that is cut off", func(c *craft) {
			f := c.file(2, 0, noFragment, 0, 0)
			c.root = c.dir(1, listing(named{"abc", f, typeFile})[:21])
		}, ErrCorrupt, "cut off"},
		{"a listing longer than the table", func(c *craft) { c.root = c.dirAt(1, 0, 1<<31) }, ErrCorrupt, "directory"},
		{"a listing outside the table", func(c *craft) { c.root = c.dirAt(1, 1<<29, 100) }, ErrCorrupt, "directory table"},
		{"an entry outside the inode table", func(c *craft) {
			c.root = c.dir(1, listing(named{"f", uint64(outside) << 16, typeFile}))
		}, ErrCorrupt, "inode"},
		{"an entry of the wrong type", with(typeDir, func(c *craft) uint64 { return c.file(2, 0, noFragment, 0, 0) }), ErrCorrupt, "type"},
		{"an unknown type", with(99, func(c *craft) uint64 { return c.inode(99, 0, 2, uint32(1)) }), ErrCorrupt, "type 99"},
		{"a root that is a file", func(c *craft) { c.root = c.file(1, 0, noFragment, 0, 0) }, ErrCorrupt, "type"},
		{"a root outside the table", func(c *craft) { c.root = 1 << 60 }, ErrCorrupt, "inode table"},
		{"an unknown owner", func(c *craft) {
			c.root = c.dir(1, nil)
			le.PutUint16(c.inodes[4:], 7)
		}, ErrCorrupt, "owner 7"},
		{"two inodes of one number", func(c *craft) {
			a := c.inode(typeFifo, 0, 2, uint32(2))
			b := c.inode(typeFifo, 0, 2, uint32(2))
			c.root = c.dir(1, listing(named{"a", a, typeFifo}, named{"b", b, typeFifo}))
		}, ErrCorrupt, "number 2"},

		{"a block outside the image", file(outside, noFragment, 0, 100, 50), ErrCorrupt, "outside"},
		{"a block over the superblock", file(0, noFragment, 0, 100, 50), ErrCorrupt, "outside"},
		{"a block larger than blocks are", file(superblockSize, noFragment, 0, 100, 5000), ErrCorrupt, "5000"},
		{"a block of the wrong length", file(superblockSize, noFragment, 0, 100, 50|blockUncompressed), ErrCorrupt, "50"},
		{"a block that does not decompress", file(superblockSize, noFragment, 0, 100, 50), ErrCorrupt, "gzip"},
		{"a block with unknown flags", file(superblockSize, noFragment, 0, 100, 1<<31|50), ErrCorrupt, "block"},
		{"an unknown fragment", file(0, 3, 0, 100), ErrCorrupt, "entry 3 of 1"},
		{"the end of a file outside its fragment", file(0, 0, 90, 100), ErrCorrupt, "outside its fragment"},
		{"the end of a file far outside its fragment", file(0, 0, 0xffffffff, 100), ErrCorrupt, "outside its fragment"},
		{"fewer blocks than the size needs", large(superblockSize, 1<<30), ErrCorrupt, ""},
		{"a size beyond counting", large(0, 1<<63), ErrCorrupt, "size"},
		{"content beyond counting", large(1<<63, 1), ErrCorrupt, "outside"},
		{"a file too large", large(0, 1<<50), ErrLimit, "bytes together"},

		{"a link without a target", link(0, ""), ErrCorrupt, "0 bytes"},
		{"a link with a target beyond reason", link(outside, ""), ErrCorrupt, "symbolic link"},
		{"a link with a NUL byte", link(3, "a\x00b"), ErrCorrupt, "NUL"},

		{"an unknown set of attributes", attrs([]byte{0}, 5), ErrCorrupt, "entry 5 of 1"},
		{"an attribute of unknown kind", attrs(raw(nil, uint16(9), uint16(1), "x", uint32(0)), 0), ErrCorrupt, "unknown kind"},
		{"an attribute without a name", attrs(raw(nil, uint16(0), uint16(0), uint32(0)), 0), ErrCorrupt, "name"},
		{"an attribute of a gigabyte", attrs(raw(nil, uint16(0), uint16(1), "x", outside), 0), ErrCorrupt, "bytes"},
		{"an attribute twice", attrs(raw(nil, uint16(0), uint16(1), "x", uint32(0), uint16(0), uint16(1), "x", uint32(0)), 0), ErrCorrupt, "twice"},
		{"an attribute with a NUL byte in its name", attrs(raw(nil, uint16(0), uint16(2), "x\x00", uint32(0)), 0), ErrCorrupt, "NUL"},
		{"an attribute kept outside the image", attrs(raw(nil, uint16(xattrOutOfLine), uint16(1), "x", uint32(8), uint64(1<<60)), 0), ErrCorrupt, "outside"},
		{"attributes that are cut off", attrs(raw(nil, uint16(0), uint16(1)), 0), ErrCorrupt, ""},
	}
}

func TestImagesThatBreakTheFormatAreRefusedByName(t *testing.T) {
	for _, x := range hostileImages() {
		t.Run(x.name, func(t *testing.T) {
			err := readAll(x.image(), Options{})
			if !errors.Is(err, x.kind) {
				t.Fatalf("error %v, want one of %v", err, x.kind)
			}
			if !strings.Contains(err.Error(), x.words) {
				t.Fatalf("the error does not say %q: %v", x.words, err)
			}
		})
	}
}

func TestSuperblocksThatMakeNoSenseAreRefused(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(b []byte)
		kind   error
	}{
		{"wrong magic", func(b []byte) { b[0]++ }, ErrCorrupt},
		{"big-endian", func(b []byte) { copy(b, "sqsh") }, ErrUnsupported},
		{"version 3", func(b []byte) { b[28] = 3 }, ErrUnsupported},
		{"lzma", func(b []byte) { b[20] = byte(LZMA) }, ErrUnsupported},
		{"unknown compression", func(b []byte) { b[20] = 77 }, ErrUnsupported},
		{"a block size that is no power of two", func(b []byte) { b[12]++ }, ErrCorrupt},
		{"blocks of 2 KiB", func(b []byte) { b[22] = 11; le.PutUint32(b[12:], 2048) }, ErrCorrupt},
		{"blocks of 2 MiB", func(b []byte) { b[22] = 21; le.PutUint32(b[12:], 2<<20) }, ErrCorrupt},
		{"longer than it is", func(b []byte) { b[45] = 1 }, ErrCorrupt},
		{"no owners", func(b []byte) { le.PutUint16(b[26:], 0) }, ErrCorrupt},
		{"owners outside", func(b []byte) { b[55] = 0x7f }, ErrCorrupt},
		{"more owners than stored", func(b []byte) { le.PutUint16(b[26:], 999) }, ErrCorrupt},
		{"inodes behind directories", func(b []byte) { copy(b[64:72], b[72:80]) }, ErrCorrupt},
		{"directories outside", func(b []byte) { b[77] = 1 }, ErrCorrupt},
		{"attributes outside", func(b []byte) { b[63] = 0 }, ErrCorrupt},
		{"fragments outside", func(b []byte) { b[16] = 1; b[87] = 1 }, ErrCorrupt},
	} {
		c := &craft{super: x.change}
		c.root = c.dir(1, nil)
		img := c.image()
		if _, err := Open(bytes.NewReader(img), 0, int64(len(img)), Options{}); !errors.Is(err, x.kind) {
			t.Errorf("%s: error %v, want %v", x.name, err, x.kind)
		}
	}
}

func TestAttributesBeyondTheLimitAreRefused(t *testing.T) {
	c := &craft{xattrs: raw(nil, uint16(0), uint16(1), "a", uint32(600), make([]byte, 600), uint16(1), uint16(1), "a", uint32(600), make([]byte, 600))}
	ref := c.inode(typeFifo+extended, 0o644, 2, uint32(1), uint32(0))
	c.root = c.dir(1, listing(named{"it", ref, typeFifo}))
	img := c.image()
	if err := readAll(img, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := readAll(img, Options{MaxXattrBytes: 1000}); !errors.Is(err, ErrLimit) {
		t.Fatalf("error %v", err)
	}
}

func TestAMillionEmptyFilesNeedLittleMemory(t *testing.T) {
	c := &craft{}
	f := c.file(2, 0, noFragment, 0, 0)
	entries := make([]named, 1_000_000)
	for i := range entries {
		entries[i] = named{fmt.Sprintf("%07d", i), f, typeFile}
	}
	c.root = c.dir(1, listing(entries...))
	img := c.image()
	entries = nil
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := readAll(img, Options{}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if err := readAll(img, Options{MaxEntries: 1_000_000}); !errors.Is(err, ErrLimit) {
		t.Errorf("one path too many: error %v", err)
	}
}

// live is what the heap holds, garbage left out.
func live() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// deep gives the reference of a directory chain of almost 4096 bytes that ends in dir.
func (c *craft) deep(number uint32, dir uint64) uint64 {
	for i := range uint32(15) {
		dir = c.dir(number+i, listing(named{strings.Repeat("d", 255), dir, typeDir}))
	}
	return dir
}

func TestNamesOfHardLinkedFilesTakeLittleMemory(t *testing.T) {
	c := &craft{}
	entries := make([]named, 100_000)
	for i := range entries {
		entries[i] = named{fmt.Sprintf("%07d", i), c.inode(typeFifo, 0o644, uint32(i+1000), uint32(2)), typeFifo}
	}
	c.root = c.deep(1, c.dir(999, listing(entries...)))
	img := c.image()
	fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	before, last := live(), ""
	if err := fs.Walk(t.Context(), func(e *Entry) error {
		if last = e.Path; strings.HasSuffix(e.Path, "/0099999") {
			if grown := live() - before; grown > 32<<20 { // their paths have 390 MB
				t.Errorf("%d bytes are held", grown)
			}
		}
		return nil
	}); err != nil || !strings.HasSuffix(last, "/0099999") {
		t.Fatalf("ended at %q, error %v", last, err)
	}
	if err := readAll(img, Options{MaxLinkBytes: 1 << 20}); !errors.Is(err, ErrLimit) {
		t.Fatalf("error %v", err)
	}
}

func TestDirectoriesOfHardLinkedFilesCountOnceEach(t *testing.T) {
	c := &craft{}
	entries := make([]named, 1000)
	for i := range entries {
		it := c.inode(typeFifo, 0o644, uint32(i+10_000), uint32(2))
		entries[i] = named{fmt.Sprintf("%07d", i), c.dir(uint32(i+1000), listing(named{"it", it, typeFifo})), typeDir}
	}
	c.root = c.deep(1, c.dir(999, listing(entries...)))
	img := c.image()
	if err := readAll(img, Options{MaxLinkBytes: 5 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := readAll(img, Options{MaxLinkBytes: 3 << 20}); !errors.Is(err, ErrLimit) {
		t.Fatalf("error %v", err)
	}
}

func TestAttributesThatWaitForTheReaderTakeLittleMemory(t *testing.T) {
	const value = 60_000
	var xattrs []byte
	for i := range 8 {
		xattrs = raw(xattrs, uint16(0), uint16(1), string(rune('a'+i)), uint32(value), make([]byte, value))
	}
	c := &craft{xattrs: xattrs, xattrSets: 2, xattrCount: 8}
	entries := make([]named, 2000)
	for i := range entries {
		// Every second one has another set, so that each has attributes of its own.
		entries[i] = named{fmt.Sprintf("%07d", i), c.inode(typeFifo+extended, 0o644, uint32(i+10), uint32(1), uint32(i%2)), typeFifo}
	}
	c.root = c.dir(1, listing(entries...))
	img := c.image()
	fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	before, n := live(), 0
	if err := fs.Stream(t.Context(), func(e *Entry, _ *Content) error {
		if n++; n%500 == 0 {
			if grown := live() - before; grown > 32<<20 { // all of them have 960 MB
				t.Errorf("%d bytes are held", grown)
			}
		}
		return nil
	}); err != nil || n != 2001 {
		t.Fatalf("%d entries, error %v", n, err)
	}
}

func TestScatteredFragmentsDoNotCostWorkWithoutEnd(t *testing.T) {
	const fragments, files = 100, 2000
	c := &craft{data: make([]byte, 200)}
	for range fragments {
		c.frags = raw(c.frags, uint64(superblockSize), uint32(100|blockUncompressed), uint32(0))
	}
	entries := make([]named, files)
	for i := range entries {
		entries[i] = named{fmt.Sprintf("%07d", i), c.file(uint32(i+10), 0, uint32(i%fragments), 0, 1), typeFile}
	}
	c.root = c.dir(1, listing(entries...))
	img := c.image()
	if err := readAll(img, Options{FragmentCache: 1, MaxFragmentWork: files * 4096}); err != nil {
		t.Fatal(err)
	}
	// A few that are in use when others are evicted may be there still when they are needed again.
	if err := readAll(img, Options{Workers: 2, FragmentCache: 1, MaxFragmentWork: files * 4096 / 2}); !errors.Is(err, ErrLimit) {
		t.Fatalf("error %v", err)
	}
	// In the cache they cost nothing.
	if err := readAll(img, Options{FragmentCache: fragments * 4096, MaxFragmentWork: fragments * 4096}); err != nil {
		t.Fatal(err)
	}
}

func TestNoGoroutineIsLeftOfAHostileImage(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, x := range hostileImages() {
		readAll(x.image(), Options{})
	}
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, were %d:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}

// samples are small images of mksquashfs, one for each compression.
func samples(tb testing.TB) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob("testdata/*.squashfs")
	if err != nil || len(names) == 0 {
		tb.Fatalf("no images in testdata (%v)", err)
	}
	out := make(map[string][]byte)
	for _, n := range names {
		if out[n], err = os.ReadFile(n); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

func TestAnImageCutOffAnywhereIsRefused(t *testing.T) {
	for name, img := range samples(t) {
		if err := readAll(img, Options{}); err != nil {
			t.Fatalf("%s: whole: %v", name, err)
		}
		for n := range img {
			if err := readAll(img[:n], Options{}); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s cut to %d of %d bytes: error %v", name, n, len(img), err)
			}
			// The same when only the file is short, not what is said of it.
			fs, err := Open(bytes.NewReader(img[:n]), 0, int64(len(img)), Options{})
			if err == nil {
				err = fs.Stream(context.Background(), func(*Entry, *Content) error { return nil })
			}
			if !expected(err) {
				t.Fatalf("%s with %d of %d bytes behind it: error %v", name, n, len(img), err)
			}
		}
	}
}

func TestAChangedByteNeverDoesMoreThanAnError(t *testing.T) {
	o := Options{MaxEntries: 1000, MaxBytes: 16 << 20, Workers: 2}
	for name, img := range samples(t) {
		for i := range img {
			for _, x := range []byte{0x01, 0x80, 0xff} {
				img[i] ^= x
				if err := readAll(img, o); !expected(err) {
					t.Fatalf("%s, byte %d: error %v", name, i, err)
				}
				img[i] ^= x
			}
		}
	}
}

type brokenReader struct{ err error }

func (b brokenReader) ReadAt([]byte, int64) (int, error) { return 0, b.err }

func TestAFailureToReadIsNotTakenForDamage(t *testing.T) {
	bad := errors.New("input/output error")
	if _, err := Open(brokenReader{bad}, 0, 1000, Options{}); !errors.Is(err, bad) || errors.Is(err, ErrCorrupt) {
		t.Fatalf("error %v", err)
	}
}

func TestAStreamEndsWithItsContextAndWithItsReader(t *testing.T) {
	c := &craft{data: make([]byte, 4096)}
	f := c.inode(typeFile+extended, 0o644, 2, uint64(superblockSize), uint64(4096), uint64(0), uint32(1), uint32(noFragment), uint32(0), uint32(noXattrs))
	c.inodes = raw(c.inodes, uint32(4096|blockUncompressed))
	var entries []named
	for i := range 5000 {
		entries = append(entries, named{fmt.Sprintf("%05d", i), f, typeFile})
	}
	c.root = c.dir(1, listing(entries...))
	img := c.image()
	fs, err := Open(bytes.NewReader(img), 0, int64(len(img)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("enough")
	n := 0
	err = fs.Stream(t.Context(), func(*Entry, *Content) error {
		if n++; n == 100 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 100 {
		t.Fatalf("%d entries, error %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = fs.Stream(ctx, func(*Entry, *Content) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
}
