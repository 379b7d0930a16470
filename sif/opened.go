package sif

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/v6node/v6node/internal/plainfile"
	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/layout"
	"github.com/v6node/v6node/sif/oras"
	"github.com/v6node/v6node/sif/reference"
	"github.com/v6node/v6node/sif/signature"
)

// OpenOptions choose how an image is opened outside of a store.
type OpenOptions struct {
	// Architecture is the machine's. Default: this program's.
	Architecture string
	// MaxImageBytes is how large file and converted image may be. Default: 256 GiB.
	MaxImageBytes int64
	// ORAS has the options for registries.
	ORAS oras.Options
	// TempDir is where a file out of a registry is kept until Close. Default: the system's.
	TempDir string
	// Progress is told how far reading and downloading are. May be nil.
	Progress func(Progress)
}

// Opened is a SIF image outside of a store: for who wants to look at it, verify it, or
// convert it into a file. It is for one goroutine. Close it.
type Opened struct {
	*image.Image
	name  string
	most  int64
	close func() error
}

// OpenImage opens a file by its path, or the image behind an oras:// reference.
func OpenImage(ctx context.Context, source string, o OpenOptions) (*Opened, error) {
	if o.MaxImageBytes <= 0 {
		o.MaxImageBytes = defaultMaxImage
	}
	opened, err := openImage(ctx, source, o)
	return opened, failed(source, err)
}

func openImage(ctx context.Context, source string, o OpenOptions) (_ *Opened, err error) {
	f, remove, err := openFile(ctx, source, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	src, err := image.NewSource(ctx, f, o.MaxImageBytes, report(o.Progress).bytes(Reading, info.Size()))
	if err != nil {
		return nil, err
	}
	img, err := image.Open(ctx, src, image.Options{Architecture: o.Architecture})
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return &Opened{img, source, o.MaxImageBytes, func() error { return errors.Join(src.Close(), remove()) }}, nil
}

func openFile(ctx context.Context, source string, o OpenOptions) (_ *os.File, remove func() error, err error) {
	if !strings.HasPrefix(source, reference.ORAS+"://") {
		f, err := plainfile.Open(source)
		return f, func() error { return nil }, err
	}
	ref, err := reference.Parse(source)
	if err != nil {
		return nil, nil, err
	}
	o.ORAS.MaxBytes = o.MaxImageBytes
	client := oras.New(o.ORAS)
	a, err := client.Resolve(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.CreateTemp(o.TempDir, "v6node-*.sif")
	if err != nil {
		return nil, nil, err
	}
	remove = func() error { return os.Remove(f.Name()) }
	if err := client.Download(ctx, a, f, report(o.Progress).bytes(Downloading, a.Size)); err != nil {
		return nil, nil, errors.Join(err, f.Close(), remove())
	}
	return f, remove, nil
}

// Close closes the image and removes what was only there for it.
func (o *Opened) Close() error { return o.close() }

// Verify checks the image's signatures, as a store does, and names the keys that have
// signed.
func (o *Opened) Verify(ctx context.Context, keys *signature.Keys) ([]string, error) {
	names, err := signature.Verify(ctx, o.File(), o.Used(), keys)
	return names, failed(o.name, err)
}

// Convert converts the image. With a destination the result is written there, without
// one it is only described.
func (o *Opened) Convert(ctx context.Context, to *layout.Destination, progress func(Progress)) (*image.Result, error) {
	var res *image.Result
	convert := func(ctx context.Context, open func(int) (io.Writer, error)) (*layout.Result, error) {
		var err error
		res, err = o.Image.Convert(ctx, open, image.ConvertOptions{MaxBytes: o.most, Progress: report(progress).bytes(Converting, 0)})
		if err != nil {
			return nil, err
		}
		out := &layout.Result{Manifest: res.Manifest, Config: res.Config}
		for _, l := range res.Layers {
			out.Layers = append(out.Layers, l.Digest)
		}
		return out, nil
	}
	var err error
	if to == nil {
		_, err = convert(ctx, func(int) (io.Writer, error) { return nil, nil })
	} else {
		_, err = layout.Write(ctx, *to, convert)
	}
	if err != nil {
		return nil, failed(o.name, err)
	}
	return res, nil
}
