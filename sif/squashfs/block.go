package squashfs

import (
	"encoding/binary"
)

const (
	fragmentEntrySize = 16
	blockUncompressed = 1 << 24
	blockSizeMask     = blockUncompressed - 1
)

// blockPlace says where one block of file content lies in the image.
type blockPlace struct {
	pos  int64
	size uint32 // in the image, with blockUncompressed
}

// check holds the place to the image and the block size.
func (f *FS) checkBlock(p blockPlace, what string) error {
	n := int64(p.size & blockSizeMask)
	if p.size&^(blockSizeMask|blockUncompressed) != 0 || n > int64(f.super.blockSize) {
		return corrupt("%s: a block of %d bytes; blocks have at most %d", what, p.size&^blockUncompressed, f.super.blockSize)
	}
	if p.pos < superblockSize || p.pos > f.super.bytesUsed || n > f.super.bytesUsed-p.pos {
		return corrupt("%s: a block outside the image (%d bytes at %d of %d)", what, n, p.pos, f.super.bytesUsed)
	}
	return nil
}

// readBlock decompresses a checked block into dst and returns how many bytes it
// has. src is room for the compressed form: one block size.
func (f *FS) readBlock(dst, src []byte, p blockPlace, d decoder, what string) (int, error) {
	n := int(p.size & blockSizeMask)
	if p.size&blockUncompressed != 0 {
		if n > len(dst) {
			return 0, corrupt("%s: the block at %d has %d bytes instead of %d", what, p.pos, n, len(dst))
		}
		return n, f.readAt(dst[:n], p.pos, what)
	}
	if err := f.readAt(src[:n], p.pos, what); err != nil {
		return 0, err
	}
	got, err := d.decode(dst, src[:n])
	if err != nil {
		return 0, corrupt("%s: the %s block at %d: %w", what, f.super.compression, p.pos, err)
	}
	return got, nil
}

// fragmentPlace looks a fragment block up in its table.
func (f *FS) fragmentPlace(i uint32) (blockPlace, error) {
	var b [fragmentEntrySize]byte
	if err := f.frags.record(int64(i), b[:]); err != nil {
		return blockPlace{}, err
	}
	pos := binary.LittleEndian.Uint64(b[:])
	p := blockPlace{int64(pos), binary.LittleEndian.Uint32(b[8:])}
	if pos > uint64(f.super.bytesUsed) {
		return p, corrupt("fragment %d lies outside the image (at %d)", i, pos)
	}
	if p.size&blockSizeMask == 0 {
		return p, corrupt("fragment %d is empty", i)
	}
	return p, f.checkBlock(p, "the fragments")
}

// blockList yields the pieces of one file's content in order.
type blockList struct {
	fs     *FS
	what   string // the path
	sizes  metaReader
	pos    int64 // of the next block
	left   int64 // bytes of the file not yet yielded
	tail   int64 // of them, in a fragment
	node   *inode
	peeked bool
	peek   uint32
}

// piece is a block, a part of a fragment, or a hole.
type piece struct {
	kind     pieceKind
	length   int64 // of the content
	place    blockPlace
	fragment uint32
	offset   uint32 // in the fragment
}

type pieceKind int

const (
	hole pieceKind = iota
	block
	tail
)

func (f *FS) blockList(n *inode, path string) blockList {
	l := blockList{fs: f, what: path, sizes: n.blocks, pos: n.start, left: n.size, node: n}
	if n.fragment != noFragment {
		l.tail = n.size & int64(f.super.blockSize-1)
	}
	return l
}

// next gives the next piece; ok is false behind the last. Neighbouring holes come
// as one.
func (l *blockList) next() (p piece, ok bool, err error) {
	if l.left == 0 {
		return piece{}, false, nil
	}
	if l.left == l.tail {
		l.left = 0
		if int64(l.node.fragOff)+l.tail > int64(l.fs.super.blockSize) {
			return piece{}, false, corrupt("%q: its end lies outside its fragment (%d bytes at %d)", l.what, l.tail, l.node.fragOff)
		}
		return piece{kind: tail, length: l.tail, fragment: l.node.fragment, offset: l.node.fragOff}, true, nil
	}
	size, err := l.size()
	if err != nil {
		return piece{}, false, err
	}
	bs := int64(l.fs.super.blockSize)
	p.length = min(l.left, bs)
	l.left -= p.length
	if size != 0 {
		p.kind = block
		p.place = blockPlace{l.pos, size}
		if err := l.fs.checkBlock(p.place, l.what); err != nil {
			return piece{}, false, err
		}
		l.pos += int64(size & blockSizeMask)
		return p, true, nil
	}
	for l.left > l.tail && p.length < maxHole {
		if size, err = l.size(); err != nil {
			return piece{}, false, err
		}
		if size != 0 {
			l.peeked, l.peek = true, size
			break
		}
		n := min(l.left, bs)
		p.length += n
		l.left -= n
	}
	return p, true, nil
}

// maxHole ends one piece of a hole, so that nobody scans a huge list at a stretch.
const maxHole = 1 << 30

func (l *blockList) size() (uint32, error) {
	if l.peeked {
		l.peeked = false
		return l.peek, nil
	}
	var room [4]byte
	b, err := l.sizes.take(4, room[:])
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}
