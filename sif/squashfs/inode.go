package squashfs

import (
	"encoding/binary"
	"strings"
)

// Types of inodes; the extended ones are basic + 7.
const (
	typeDir     = 1
	typeFile    = 2
	typeSymlink = 3
	typeBlock   = 4
	typeChar    = 5
	typeFifo    = 6
	typeSocket  = 7
	extended    = 7
)

const (
	noFragment = 0xffffffff
	noXattrs   = 0xffffffff
	maxTarget  = 4095 // PATH_MAX without its NUL
	maxInode   = 64   // bytes of the fixed part of any inode, and then some
)

// inode is one decoded inode. Which fields count depends on kind.
type inode struct {
	ref    uint64 // place: block in the inode table << 16 | offset
	kind   uint16 // a basic type
	mode   uint16 // permission bits, setuid, setgid, sticky
	uid    uint32
	gid    uint32
	mtime  uint32
	number uint32
	nlink  uint32
	xattr  uint32

	rdev   uint32 // devices
	target string // symbolic links

	dirBlock  uint32 // directories: where the listing starts in the directory table
	dirOffset uint16
	dirSize   uint32 // of the listing, with 3 for "." and ".." which are not stored

	size     int64 // regular files
	start    int64 // of the first block
	fragment uint32
	fragOff  uint32
	blocks   metaReader // stands at the list of block sizes
}

// readInode decodes the inode at ref. path names it in errors.
func (f *FS) readInode(ref uint64, path string) (*inode, error) {
	const what = "the inode table"
	block, off := ref>>16, int(ref&0xffff)
	if block >= uint64(f.super.dirTable-f.super.inodeTable) || off >= metaBlockSize {
		return nil, corrupt("%q: its inode lies outside the inode table (block %d, offset %d)", path, block, off)
	}
	m, err := f.metaAt(f.super.inodeTable+int64(block), off, what)
	if err != nil {
		return nil, err
	}
	var scratch [maxInode]byte
	le := binary.LittleEndian
	b, err := m.take(16, scratch[:])
	if err != nil {
		return nil, err
	}
	kind := le.Uint16(b)
	n := &inode{
		ref:    ref,
		kind:   kind,
		mode:   le.Uint16(b[2:]) & 0o7777,
		mtime:  le.Uint32(b[8:]),
		number: le.Uint32(b[12:]),
		nlink:  1,
		xattr:  noXattrs,
	}
	if n.uid, err = f.owner(le.Uint16(b[4:]), path); err != nil {
		return nil, err
	}
	if n.gid, err = f.owner(le.Uint16(b[6:]), path); err != nil {
		return nil, err
	}
	if kind > extended {
		n.kind -= extended
	}
	switch kind {
	case typeDir:
		if b, err = m.take(16, scratch[:]); err != nil {
			return nil, err
		}
		n.dirBlock, n.nlink = le.Uint32(b), le.Uint32(b[4:])
		n.dirSize, n.dirOffset = uint32(le.Uint16(b[8:])), le.Uint16(b[10:])
	case typeDir + extended: // an index follows, which only lookups need
		if b, err = m.take(24, scratch[:]); err != nil {
			return nil, err
		}
		n.nlink, n.dirSize, n.dirBlock = le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])
		n.dirOffset, n.xattr = le.Uint16(b[18:]), le.Uint32(b[20:])
	case typeFile:
		if b, err = m.take(16, scratch[:]); err != nil {
			return nil, err
		}
		n.start, n.fragment, n.fragOff = int64(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:])
		n.size = int64(le.Uint32(b[12:]))
		n.blocks = m
	case typeFile + extended:
		if b, err = m.take(40, scratch[:]); err != nil {
			return nil, err
		}
		start, size := le.Uint64(b), le.Uint64(b[8:])
		if size > 1<<62 {
			return nil, corrupt("%q: impossible size %d", path, size)
		}
		if start > uint64(f.super.bytesUsed) {
			return nil, corrupt("%q: its content lies outside the image (at %d)", path, start)
		}
		n.start, n.size = int64(start), int64(size)
		n.nlink, n.fragment, n.fragOff, n.xattr = le.Uint32(b[24:]), le.Uint32(b[28:]), le.Uint32(b[32:]), le.Uint32(b[36:])
		n.blocks = m
	case typeSymlink, typeSymlink + extended:
		if b, err = m.take(8, scratch[:]); err != nil {
			return nil, err
		}
		size := le.Uint32(b[4:])
		n.nlink = le.Uint32(b)
		if size == 0 || size > maxTarget {
			return nil, corrupt("%q: a symbolic link with a target of %d bytes", path, size)
		}
		target := make([]byte, size)
		if err := m.read(target); err != nil {
			return nil, err
		}
		n.target = string(target)
		if strings.IndexByte(n.target, 0) >= 0 {
			return nil, corrupt("%q: the target of the symbolic link has a NUL byte", path)
		}
		if kind > extended {
			if b, err = m.take(4, scratch[:]); err != nil {
				return nil, err
			}
			n.xattr = le.Uint32(b)
		}
	case typeBlock, typeChar, typeBlock + extended, typeChar + extended:
		size := 8
		if kind > extended {
			size += 4
		}
		if b, err = m.take(size, scratch[:]); err != nil {
			return nil, err
		}
		n.nlink, n.rdev = le.Uint32(b), le.Uint32(b[4:])
		if kind > extended {
			n.xattr = le.Uint32(b[8:])
		}
	case typeFifo, typeSocket, typeFifo + extended, typeSocket + extended:
		size := 4
		if kind > extended {
			size += 4
		}
		if b, err = m.take(size, scratch[:]); err != nil {
			return nil, err
		}
		n.nlink = le.Uint32(b)
		if kind > extended {
			n.xattr = le.Uint32(b[4:])
		}
	default:
		return nil, corrupt("%q: unknown type %d of inode", path, kind)
	}
	return n, nil
}

func (f *FS) owner(i uint16, path string) (uint32, error) {
	if int(i) >= len(f.ids) {
		return 0, corrupt("%q: owner %d of %d", path, i, len(f.ids))
	}
	return f.ids[i], nil
}
