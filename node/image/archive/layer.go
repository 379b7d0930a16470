package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// maxWindow is what unpacking zstd may take of the memory.
const maxWindow = 128 << 20

// CopyLayer writes a layer to w as it is in the archive, verifies it, and fills in its
// digest and media type where the archive does not tell them. What was written
// before an error is to be thrown away.
func (a *Archive) CopyLayer(ctx context.Context, l *Layer, w io.Writer, progress func(done, total int64)) error {
	whole := sha256.New()
	in := io.TeeReader(&counted{ctx: ctx, r: a.open(l.file), total: l.Size, tell: progress}, io.MultiWriter(w, whole))
	packed := bufio.NewReaderSize(in, 1<<20)
	head, err := packed.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	plain, mediaType, end, err := unpacked(packed, head)
	if err != nil {
		return malformed("a layer's compression is damaged: %w", err)
	}
	defer end()
	content := sha256.New()
	n, err := io.Copy(content, io.LimitReader(plain, a.left+1))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && damaged(err):
		return malformed("a layer is damaged or cut off: %w", err)
	case err != nil:
		return err
	case n > a.left:
		return a.tooLarge()
	}
	a.left -= n
	if _, err := io.Copy(io.Discard, packed); err != nil { // behind the end of the compressed data
		return err
	}
	if got := sum(content.Sum(nil)); got != l.DiffID {
		return malformed("a layer unpacks to %s, and its image says %s", got, l.DiffID)
	}
	got := sum(whole.Sum(nil))
	if l.Digest != "" && l.Digest != got {
		return malformed("its part %s has other content than this digest says", l.Digest)
	}
	if l.Digest = got; l.MediaType == "" {
		l.MediaType = mediaType
	}
	return nil
}

func sum(b []byte) string { return "sha256:" + hex.EncodeToString(b) }

// unpacked is the tar in a layer, by what it begins with: names of media types lie.
func unpacked(r io.Reader, head []byte) (_ io.Reader, mediaType string, end func(), err error) {
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		z, err := gzip.NewReader(r)
		return z, v1.MediaTypeImageLayerGzip, func() {}, err
	case bytes.HasPrefix(head, zstdMagic):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, "", nil, err
		}
		return z, v1.MediaTypeImageLayerZstd, z.Close, nil
	}
	return r, v1.MediaTypeImageLayer, func() {}, nil
}
