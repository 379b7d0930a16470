package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/v6node/v6node/sif/layer"
	"github.com/v6node/v6node/sif/squashfs"
)

// Result is the OCI image that a SIF was converted to.
type Result struct {
	Manifest     []byte
	Digest       string // of the manifest: the identity of the OCI image
	Config       []byte
	ConfigDigest string // what runtimes call the image's id
	Layers       []Layer
}

// Layer is one layer of the result.
type Layer struct {
	MediaType string
	Digest    string
	DiffID    string // digest of the tar; the same as Digest, as these are not compressed
	Size      int64
	Entries   int64 // files, directories and so on; 0 when the layer was passed on as it is
	Sockets   int64 // left out: tar has none
}

// ConvertOptions bound a conversion and watch it.
type ConvertOptions struct {
	// MaxBytes is how long all layers together may become. Default: 256 GiB.
	MaxBytes int64
	// Progress, if set, is told now and then how many bytes of layers there are.
	Progress func(bytes int64)
}

// Layers is how many layers the result will have.
func (i *Image) Layers() int { return len(i.layers) }

// Convert writes the layers, in order, to what open returns for each, and makes the
// configuration and the manifest. A nil writer is for who only wants the digests. Each
// byte is read once; digests are computed in the same pass. When Convert fails, what
// was written is worth nothing. The caller closes what it opened.
func (i *Image) Convert(ctx context.Context, open func(n int) (io.Writer, error), o ConvertOptions) (*Result, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 30
	}
	res := &Result{}
	var done int64
	for n := range i.layers {
		w, err := open(n)
		if err != nil {
			return nil, err
		}
		var progress func(int64)
		if o.Progress != nil {
			progress = func(bytes int64) { o.Progress(done + bytes) }
		}
		l, err := i.convertLayer(ctx, n, w, o.MaxBytes-done, progress)
		if err != nil {
			return nil, err
		}
		done += l.Size
		res.Layers = append(res.Layers, l)
	}
	if err := i.src.Unchanged(); err != nil {
		return nil, err
	}
	return res, i.describe(res)
}

func (i *Image) convertLayer(ctx context.Context, n int, w io.Writer, most int64, progress func(int64)) (Layer, error) {
	s := i.layers[n]
	if most <= 0 {
		return Layer{}, tooMuch("its layers are too large")
	}
	if !s.squashfs {
		return i.passOn(ctx, s, w, most)
	}
	img, err := squashfs.Open(i.src, s.off, s.size, i.opts.Squashfs)
	if err != nil {
		return Layer{}, i.nameLayer(n, err)
	}
	var out layer.Result
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() (err error) {
		out, err = layer.Write(ctx, w, img, layer.Options{OverlayWhiteouts: i.Kind == OCI, MaxBytes: most, Progress: progress})
		return err
	})
	if s.digest != "" {
		work.Go(func() error { return i.checkBlob(ctx, s, nil) })
	}
	if err := work.Wait(); err != nil {
		return Layer{}, i.nameLayer(n, err)
	}
	return Layer{MediaType: typeLayer, Digest: out.DiffID, DiffID: out.DiffID, Size: out.Size, Entries: out.Entries, Sockets: out.Sockets}, nil
}

// nameLayer says which layer an error is about, when there are several.
func (i *Image) nameLayer(n int, err error) error {
	if len(i.layers) == 1 {
		return err
	}
	return fmt.Errorf("layer %d: %w", n+1, err)
}

// passOn copies a layer that is a tar already.
func (i *Image) passOn(ctx context.Context, s layerSource, w io.Writer, most int64) (Layer, error) {
	if s.size > most {
		return Layer{}, tooMuch("its layers are too large")
	}
	if err := i.checkBlob(ctx, s, w); err != nil {
		return Layer{}, err
	}
	return Layer{MediaType: s.mediaType, Digest: s.digest, DiffID: s.diffID, Size: s.size}, nil
}

// checkBlob reads a blob, checks its digest, and writes it to w unless that is nil.
func (i *Image) checkBlob(ctx context.Context, s layerSource, w io.Writer) error {
	hash := sha256.New()
	out := io.Writer(hash)
	if w != nil {
		out = io.MultiWriter(hash, w)
	}
	r := io.NewSectionReader(i.src, s.off, s.size)
	buf := make([]byte, chunkSize)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if _, werr := out.Write(buf[:n]); werr != nil {
			return fmt.Errorf("write the layer: %w", werr)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != s.digest {
		return corrupt("the content of blob %s is another", s.digest)
	}
	return nil
}

// describe makes the configuration and the manifest of the result.
func (i *Image) describe(res *Result) error {
	cfg := imageConfig{Created: stamp(i.Created), Architecture: i.Architecture, Variant: i.Variant, OS: "linux", Config: i.Config, RootFS: rootFS{Type: "layers"}}
	m := manifest{SchemaVersion: 2, MediaType: typeManifest}
	for _, l := range res.Layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
		m.Layers = append(m.Layers, descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	var err error
	if res.Config, err = marshal(cfg); err != nil {
		return err
	}
	res.ConfigDigest = digestOf(res.Config)
	m.Config = descriptor{MediaType: typeConfig, Digest: res.ConfigDigest, Size: int64(len(res.Config))}
	if res.Manifest, err = marshal(m); err != nil {
		return err
	}
	res.Digest = digestOf(res.Manifest)
	return nil
}
