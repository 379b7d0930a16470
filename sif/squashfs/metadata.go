package squashfs

import (
	"container/list"
	"encoding/binary"
	"sync"
)

// Metadata (inodes, directories, tables) is a chain of blocks of 8 KiB, each
// behind a header of two bytes with its size in the image.
const (
	metaBlockSize    = 8192
	metaUncompressed = 0x8000
)

// metaBlock is one decompressed block. It never changes.
type metaBlock struct {
	pos  int64 // of its header
	next int64 // where the header after it is
	data []byte
}

// metadataCache keeps the blocks used last, up to a number of them.
type metadataCache struct {
	mu     sync.Mutex
	blocks map[int64]*list.Element
	used   *list.List // of *metaBlock, the latest first
	limit  int
	src    []byte
}

func (c *metadataCache) init(bytes int64) {
	c.blocks = make(map[int64]*list.Element)
	c.used = list.New()
	c.limit = int(min(max(bytes/metaBlockSize, 8), 1<<20))
	c.src = make([]byte, metaBlockSize)
}

// metadata gives the block whose header is at pos. what names it in errors.
func (f *FS) metadata(pos int64, what string) (*metaBlock, error) {
	c := &f.meta
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.blocks[pos]; ok {
		c.used.MoveToFront(e)
		return e.Value.(*metaBlock), nil
	}
	b, err := f.loadMetadata(pos, what)
	if err != nil {
		return nil, err
	}
	if c.used.Len() >= c.limit {
		last := c.used.Back()
		c.used.Remove(last)
		delete(c.blocks, last.Value.(*metaBlock).pos)
	}
	c.blocks[pos] = c.used.PushFront(b)
	return b, nil
}

func (f *FS) loadMetadata(pos int64, what string) (*metaBlock, error) {
	var head [2]byte
	if err := f.readAt(head[:], pos, what); err != nil {
		return nil, err
	}
	h := binary.LittleEndian.Uint16(head[:])
	size := int(h &^ metaUncompressed)
	if size == 0 || size > metaBlockSize {
		return nil, corrupt("%s: a metadata block of %d bytes at %d", what, size, pos)
	}
	b := &metaBlock{pos: pos, next: pos + 2 + int64(size)}
	if h&metaUncompressed != 0 {
		b.data = make([]byte, size)
		return b, f.readAt(b.data, pos+2, what)
	}
	src := f.meta.src[:size]
	if err := f.readAt(src, pos+2, what); err != nil {
		return nil, err
	}
	b.data = make([]byte, metaBlockSize)
	d := f.codecs.get()
	defer f.codecs.put(d)
	n, err := d.decode(b.data, src)
	if err != nil {
		return nil, corrupt("%s: metadata block at %d: %w", what, pos, err)
	}
	if n == 0 {
		return nil, corrupt("%s: empty metadata block at %d", what, pos)
	}
	b.data = b.data[:n]
	return b, nil
}

// metaReader reads a run of bytes that goes over as many blocks as it needs.
type metaReader struct {
	fs   *FS
	what string
	data []byte // what is left of the current block
	next int64  // the block after it
}

// metaAt starts at offset off of the block whose header is at pos.
func (f *FS) metaAt(pos int64, off int, what string) (metaReader, error) {
	b, err := f.metadata(pos, what)
	if err != nil {
		return metaReader{}, err
	}
	if off > len(b.data) {
		return metaReader{}, corrupt("%s: offset %d in a metadata block of %d bytes", what, off, len(b.data))
	}
	return metaReader{f, what, b.data[off:], b.next}, nil
}

// more makes the next block the current one when nothing is left of that.
func (m *metaReader) more() error {
	if len(m.data) > 0 {
		return nil
	}
	b, err := m.fs.metadata(m.next, m.what)
	if err != nil {
		return err
	}
	m.data, m.next = b.data, b.next
	return nil
}

// read fills p.
func (m *metaReader) read(p []byte) error {
	for len(p) > 0 {
		if err := m.more(); err != nil {
			return err
		}
		n := copy(p, m.data)
		m.data, p = m.data[n:], p[n:]
	}
	return nil
}

// take gives the next n bytes: inside the block when they lie in one piece, else
// in scratch, which must have room. They must not be changed.
func (m *metaReader) take(n int, scratch []byte) ([]byte, error) {
	if err := m.more(); n > 0 && err != nil {
		return nil, err
	}
	if len(m.data) >= n {
		b := m.data[:n:n]
		m.data = m.data[n:]
		return b, nil
	}
	return scratch[:n], m.read(scratch[:n])
}

// skip passes over n bytes.
func (m *metaReader) skip(n int64) error {
	for n > 0 {
		if err := m.more(); err != nil {
			return err
		}
		k := min(n, int64(len(m.data)))
		m.data, n = m.data[k:], n-k
	}
	return nil
}
