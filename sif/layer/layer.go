package layer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/v6node/v6node/sif/squashfs"
)

// Options choose what a layer is made from. The zero value is right for the squashfs
// of a native SIF.
type Options struct {
	// OverlayWhiteouts is for a layer of an OCI-SIF, which marks what it deletes the
	// way overlayfs does: character devices 0:0 become OCI whiteouts (".wh.NAME"), and
	// directories with trusted.overlay.opaque=y get a ".wh..wh..opq".
	OverlayWhiteouts bool
	// MaxBytes is how long the tar may become. Default: 256 GiB.
	MaxBytes int64
	// Progress, if set, is told now and then, on one goroutine, how many bytes of
	// the tar have been made.
	Progress func(bytes int64)
}

// Result says what was written.
type Result struct {
	DiffID  string // "sha256:" and the digest of the tar
	Size    int64  // of the tar
	Entries int64  // in the tar, hard links and whiteouts included
	Sockets int64  // left out
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

// Write writes the layer to w and returns its digest, computed in the same pass. w
// may be nil when only the digest is wanted. When it fails, what w has got is worth
// nothing; errors of the image wrap the sentinels of squashfs, [ErrUnrepresentable]
// means that an OCI layer cannot hold it. All goroutines have ended when it returns.
func Write(ctx context.Context, w io.Writer, img *squashfs.FS, o Options) (Result, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 30
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hash := sha256.New()
	sinks := []io.Writer{hash}
	if w != nil {
		sinks = append(sinks, w)
	}
	q := newQueue(ctx, cancel, sinks)
	b := builder{q: q, opts: o}
	err := img.Stream(ctx, b.entry)
	if err == nil {
		err = b.end()
	}
	if sinkErr := q.close(); sinkErr != nil {
		return Result{}, sinkErr
	}
	if err != nil {
		return Result{}, err
	}
	b.result.Size = q.size
	b.result.DiffID = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return b.result, nil
}

// builder makes the tar out of entries.
type builder struct {
	q      *queue
	opts   Options
	result Result
	head   []byte
}

func (b *builder) entry(e *squashfs.Entry, content *squashfs.Content) error {
	if strings.HasPrefix(path.Base(e.Path), whiteoutPrefix) {
		return fmt.Errorf("%q %w: names that start with %q mean that a file is deleted", e.Path, ErrUnrepresentable, whiteoutPrefix)
	}
	h, ok := headerOf(e)
	if !ok {
		b.result.Sockets++
		return nil
	}
	opaque := false
	if b.opts.OverlayWhiteouts {
		switch {
		case e.Mode.Type() == fs.ModeDevice|fs.ModeCharDevice && e.Rdev == squashfs.Device{}:
			dir, name := path.Split(e.Path)
			h = header{name: dir + whiteoutPrefix + name, flag: regular, mtime: h.mtime}
		case e.Mode.IsDir():
			opaque = isOpaque(e)
		}
	}
	if err := b.header(&h); err != nil {
		return err
	}
	if opaque {
		return b.header(&header{name: h.name + opaqueMarker, flag: regular, mtime: h.mtime})
	}
	if content == nil {
		return nil
	}
	if err := b.room(h.size); err != nil {
		return err
	}
	for {
		c, err := content.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := b.q.chunk(c); err != nil {
			return err
		}
	}
	if b.opts.Progress != nil {
		b.opts.Progress(b.q.size)
	}
	return b.q.write(zeroBytes[:padding(h.size)])
}

func (b *builder) header(h *header) error {
	var err error
	if b.head, err = h.append(b.head[:0]); err != nil {
		return err
	}
	b.result.Entries++
	if err := b.room(int64(len(b.head))); err != nil {
		return err
	}
	return b.q.write(b.head)
}

// room fails when n more bytes would be too many.
func (b *builder) room(n int64) error {
	if n > b.opts.MaxBytes-b.q.size {
		return fmt.Errorf("%w: the layer would have more than %d bytes", squashfs.ErrLimit, b.opts.MaxBytes)
	}
	return nil
}

func (b *builder) end() error {
	if err := b.q.write(zeroBytes[:2*blockSize]); err != nil {
		return err
	}
	if b.opts.Progress != nil {
		b.opts.Progress(b.q.size)
	}
	return nil
}

func isOpaque(e *squashfs.Entry) bool {
	for _, x := range e.Xattrs {
		if x.Name == "trusted.overlay.opaque" && string(x.Value) == "y" {
			return true
		}
	}
	return false
}
