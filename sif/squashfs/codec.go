package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"

	"github.com/v6node/v6node/sif/squashfs/internal/inflate"
	"github.com/v6node/v6node/sif/squashfs/internal/lzo"
)

// Compression is how an image's blocks are compressed.
type Compression uint16

const (
	Gzip Compression = 1
	LZMA Compression = 2 // of images before 2009; not read, neither does the kernel
	LZO  Compression = 3
	XZ   Compression = 4
	LZ4  Compression = 5
	Zstd Compression = 6
)

func (c Compression) String() string {
	switch c {
	case Gzip:
		return "gzip"
	case LZMA:
		return "lzma"
	case LZO:
		return "lzo"
	case XZ:
		return "xz"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("compression %d", uint16(c))
}

// A decoder decompresses one block at a time. decode fills at most len(dst) bytes
// and fails when src holds more. It is used by one goroutine at a time.
type decoder interface {
	decode(dst, src []byte) (int, error)
}

// codecs lends out decoders of one compression, which are costly to make.
type codecs struct {
	pool sync.Pool
}

func (c *codecs) init(kind Compression, blockSize int) error {
	var make func() any
	switch kind {
	case Gzip:
		make = func() any { return &gzipDecoder{} }
	case LZO:
		make = func() any { return lzoDecoder{} }
	case XZ:
		make = func() any { return newXZDecoder(blockSize) }
	case LZ4:
		make = func() any { return lz4Decoder{} }
	case Zstd:
		make = func() any { return newZstdDecoder() }
	default:
		return fmt.Errorf("%w: it is compressed with %s", ErrUnsupported, kind)
	}
	c.pool.New = make
	return nil
}

func (c *codecs) get() decoder  { return c.pool.Get().(decoder) }
func (c *codecs) put(d decoder) { c.pool.Put(d) }

type gzipDecoder struct{ d inflate.Decoder }

func (g *gzipDecoder) decode(dst, src []byte) (int, error) { return g.d.Zlib(dst, src) }

type lzoDecoder struct{}

func (lzoDecoder) decode(dst, src []byte) (int, error) { return lzo.Decode(dst, src) }

type lz4Decoder struct{}

func (lz4Decoder) decode(dst, src []byte) (int, error) { return lz4.UncompressBlock(src, dst) }

type zstdDecoder struct{ d *zstd.Decoder }

func newZstdDecoder() *zstdDecoder {
	// Only wrong options make NewReader fail without a reader.
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		panic(err)
	}
	return &zstdDecoder{d}
}

func (z *zstdDecoder) decode(dst, src []byte) (int, error) {
	out, err := z.d.DecodeAll(src, dst[:0:len(dst)])
	return len(out), err
}

// xzDecoder reads one .xz file a block. The dictionary is bounded: blocks are at
// most 1 MiB, and no known writer takes a larger dictionary than the block.
type xzDecoder struct {
	r    *xz.Reader
	src  bytes.Reader
	dict uint32
	tail [1]byte
}

func newXZDecoder(blockSize int) *xzDecoder {
	return &xzDecoder{dict: uint32(max(blockSize, 1<<maxBlockLog))}
}

func (x *xzDecoder) decode(dst, src []byte) (n int, err error) {
	// Of the decoders only this one is a port of C with little fuzzing behind it:
	// a slip in it must not end the node.
	defer func() {
		if r := recover(); r != nil {
			x.r = nil
			n, err = 0, fmt.Errorf("the xz decoder failed: %v", r)
		}
	}()
	x.src.Reset(src)
	if x.r == nil {
		x.r, err = xz.NewReader(&x.src, x.dict)
	} else {
		err = x.r.Reset(&x.src)
	}
	if err != nil {
		x.r = nil
		return 0, err
	}
	x.r.Multistream(false)
	for n < len(dst) && err == nil {
		var m int
		m, err = x.r.Read(dst[n:])
		n += m
	}
	if err == nil { // full: the end must follow
		var m int
		if m, err = io.ReadFull(x.r, x.tail[:]); m > 0 {
			return 0, errors.New("xz data decode to more than the block may hold")
		}
	}
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	return n, nil
}
