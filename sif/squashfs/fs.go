package squashfs

import (
	"io"
)

// FS is one opened image. Its methods may be called by many goroutines at once.
// It holds no resources that need closing.
type FS struct {
	r     io.ReaderAt
	off   int64
	opts  Options
	super superblock

	codecs codecs
	meta   metadataCache
	ids    []uint32
	frags  table
	xattrs *xattrTable // nil: the image has none
}

// Open reads the superblock and the small tables of the image that occupies size
// bytes at offset off of r. r must not change as long as the FS is used.
func Open(r io.ReaderAt, off, size int64, o Options) (*FS, error) {
	if off < 0 || size < 0 || off+size < off {
		return nil, corrupt("impossible place of the image (%d bytes at %d)", size, off)
	}
	f := &FS{r: r, off: off, opts: o.withDefaults()}
	f.super.bytesUsed = size // until the superblock says how many of them count
	b := make([]byte, superblockSize)
	if err := f.readAt(b, 0, "the superblock"); err != nil {
		return nil, err
	}
	var err error
	if f.super, err = parseSuperblock(b, size); err != nil {
		return nil, err
	}
	if err := f.codecs.init(f.super.compression, f.super.blockSize); err != nil {
		return nil, err
	}
	f.meta.init(f.opts.MetadataCache)
	if f.ids, err = f.readIDs(); err != nil {
		return nil, err
	}
	f.frags = table{fs: f, start: int64(f.super.fragTable), count: int64(f.super.fragments), width: fragmentEntrySize, what: "the table of fragments"}
	if f.xattrs, err = f.openXattrs(); err != nil {
		return nil, err
	}
	return f, nil
}
