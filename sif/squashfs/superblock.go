package squashfs

import (
	"encoding/binary"
	"fmt"
	"time"
)

const (
	superblockSize = 96
	magic          = 0x73717368 // "hsqs"
	minBlockLog    = 12         // 4 KiB
	maxBlockLog    = 20         // 1 MiB
	noTable        = ^uint64(0)
)

// superblock is the first 96 bytes of an image, checked.
type superblock struct {
	inodes      uint32
	modTime     uint32
	blockSize   int
	blockLog    uint
	fragments   uint32
	compression Compression
	ids         int
	rootInode   uint64
	bytesUsed   int64
	idTable     uint64
	xattrTable  uint64
	inodeTable  int64
	dirTable    int64
	fragTable   uint64
}

func parseSuperblock(b []byte, size int64) (superblock, error) {
	le := binary.LittleEndian
	if len(b) < superblockSize {
		return superblock{}, corrupt("the superblock is cut off")
	}
	switch le.Uint32(b) {
	case magic:
	case 0x68737173:
		return superblock{}, fmt.Errorf("%w: it is big-endian, an old format", ErrUnsupported)
	default:
		return superblock{}, corrupt("no squashfs superblock (magic %#08x)", le.Uint32(b))
	}
	if major, minor := le.Uint16(b[28:]), le.Uint16(b[30:]); major != 4 || minor != 0 {
		return superblock{}, fmt.Errorf("%w: it has format version %d.%d, only 4.0 is read", ErrUnsupported, major, minor)
	}
	s := superblock{
		inodes:      le.Uint32(b[4:]),
		modTime:     le.Uint32(b[8:]),
		fragments:   le.Uint32(b[16:]),
		compression: Compression(le.Uint16(b[20:])),
		blockLog:    uint(le.Uint16(b[22:])),
		ids:         int(le.Uint16(b[26:])),
		rootInode:   le.Uint64(b[32:]),
		idTable:     le.Uint64(b[48:]),
		xattrTable:  le.Uint64(b[56:]),
		fragTable:   le.Uint64(b[80:]),
	}
	if s.blockLog < minBlockLog || s.blockLog > maxBlockLog || le.Uint32(b[12:]) != 1<<s.blockLog {
		return superblock{}, corrupt("block size %d with logarithm %d", le.Uint32(b[12:]), s.blockLog)
	}
	s.blockSize = 1 << s.blockLog
	used, inodes, dirs := le.Uint64(b[40:]), le.Uint64(b[64:]), le.Uint64(b[72:])
	if used > uint64(size) {
		return superblock{}, corrupt("cut off: the image has %d bytes and says it needs %d", size, used)
	}
	if used < superblockSize || inodes < superblockSize || inodes >= dirs || dirs >= used {
		return superblock{}, corrupt("tables outside the image or out of order (inodes at %d, directories at %d, end at %d)", inodes, dirs, used)
	}
	s.bytesUsed, s.inodeTable, s.dirTable = int64(used), int64(inodes), int64(dirs)
	if s.ids == 0 || s.idTable >= used {
		return superblock{}, corrupt("no table of owners (%d owners, table at %d)", s.ids, s.idTable)
	}
	if s.fragments > 0 && s.fragTable >= used {
		return superblock{}, corrupt("the table of %d fragments lies outside the image (at %d)", s.fragments, s.fragTable)
	}
	if s.xattrTable != noTable && s.xattrTable >= used {
		return superblock{}, corrupt("the table of extended attributes lies outside the image (at %d)", s.xattrTable)
	}
	return s, nil
}

// Info says what the superblock says about an image.
type Info struct {
	Compression Compression
	BlockSize   int
	Inodes      uint32 // as stated, not as counted
	ModTime     time.Time
	BytesUsed   int64
}

// Info describes the image as its superblock does.
func (f *FS) Info() Info {
	s := &f.super
	return Info{s.compression, s.blockSize, s.inodes, time.Unix(int64(s.modTime), 0).UTC(), s.bytesUsed}
}
