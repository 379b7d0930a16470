package sif

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/v6node/v6node/sif/image"
)

// Importer takes layers straight to where a runtime keeps what it has pulled, so
// that they are neither written to the cache nor sent to the runtime by a pull.
type Importer interface {
	// Import begins a layer; ctx bounds all of it but the Release.
	Import(ctx context.Context) (Imported, error)
}

// Imported is a layer that is being imported. It is for one goroutine.
type Imported interface {
	io.Writer
	// Commit ends the layer, and verifies its digest.
	Commit(digest string) error
	// Release ends the import. A layer that was committed then stays only if the
	// runtime has an image that wants it. It is called once.
	Release(ctx context.Context) error
}

// releaseTime bounds the end of an import.
const releaseTime = 10 * time.Second

// imports are the layers of one image on their way to the runtime.
type imports struct {
	all []Imported
	// failed is why the runtime did not take them, which is nothing against the image.
	failed error
}

// importing is a layer's writer, which tells the runtime's failures from others.
type importing struct {
	io.Writer
	failed *error
}

func (w importing) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		*w.failed = err
	}
	return n, err
}

// into converts an image right into the runtime's store. The imports are to be
// released also after an error.
func (i *imports) into(ctx context.Context, to Importer, img *image.Image, o image.ConvertOptions) (*image.Result, error) {
	res, err := img.Convert(ctx, func(int) (io.Writer, error) {
		l, err := to.Import(ctx)
		if err != nil {
			i.failed = err
			return nil, err
		}
		i.all = append(i.all, l)
		return importing{l, &i.failed}, nil
	}, o)
	if err != nil {
		return nil, err
	}
	for n, l := range i.all {
		if err := l.Commit(res.Layers[n].Digest); err != nil {
			i.failed = err
			return nil, err
		}
	}
	return res, nil
}

// release ends all. Without imports it does nothing.
func (i *imports) release(ctx context.Context) error {
	if i == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	var errs []error
	for _, l := range i.all {
		errs = append(errs, l.Release(ctx))
	}
	i.all = nil
	return errors.Join(errs...)
}
