package sif

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"

	"github.com/v6node/v6node/sif/cache"
	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/registry"
)

// servedImage is a cached image as the registry wants it. Its lease on the cache ends when it was
// closed and no blob is open any more.
type servedImage struct {
	store    *Store
	resolved Resolved
	record   *cache.Record

	mu     sync.Mutex
	image  *cache.Image
	open   int
	closed bool
}

func (i *servedImage) Manifest() (content []byte, mediaType, digest string) {
	return i.record.Manifest, image.ManifestType, i.record.Digest
}

func (i *servedImage) BlobSize(digest string) int64 {
	if digest == i.record.ConfigDigest {
		return int64(len(i.record.Config))
	}
	for _, l := range i.record.Layers {
		if l.Digest == digest {
			return l.Size
		}
	}
	return -1
}

func (i *servedImage) Blob(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	if digest == i.record.ConfigDigest {
		return &memory{bytes.NewReader(i.record.Config)}, nil
	}
	for n, l := range i.record.Layers {
		if l.Digest == digest {
			return i.layer(ctx, n, l)
		}
	}
	return nil, registry.ErrUnknown
}

// layer opens a layer, and makes it when it is not there.
func (i *servedImage) layer(ctx context.Context, n int, l cache.Layer) (io.ReadSeekCloser, error) {
	if !i.begin() {
		return nil, registry.ErrUnknown
	}
	f, err := i.image.OpenLayer(n, l)
	if errors.Is(err, fs.ErrNotExist) {
		// Whoever asks for it has not got it by an import.
		if _, err = i.makeLayers(ctx, nil, nil); err == nil {
			f, err = i.image.OpenLayer(n, l)
		}
	}
	if err != nil {
		return nil, errors.Join(err, i.end())
	}
	return &leased{f, i.end}, nil
}

// prepare makes the layers before anyone asks for them.
func (i *servedImage) prepare(ctx context.Context, progress report) (*imports, error) {
	if !i.begin() {
		return nil, errors.New("the image was released already")
	}
	sent, err := i.makeLayers(ctx, i.store.o.Importer, progress)
	return sent, errors.Join(err, i.end())
}

func (i *servedImage) makeLayers(ctx context.Context, to Importer, progress report) (sent *imports, err error) {
	err = i.image.MakeLayers(ctx, i.record, func(w *cache.Work) (err error) {
		sent, err = i.store.layersAgain(ctx, to, i.resolved, w, i.record, progress)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, sent.release(ctx))
	}
	return sent, nil
}

// begin notes that a blob is used, unless the image is released already.
func (i *servedImage) begin() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return false
	}
	i.open++
	return true
}

func (i *servedImage) end() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.open--
	return i.leave()
}

func (i *servedImage) close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	i.closed = true
	return i.leave()
}

// leave gives the lease back when it was the last use. The lock is held.
func (i *servedImage) leave() error {
	if !i.closed || i.open > 0 {
		return nil
	}
	return i.image.Close()
}

// leased is an open layer that keeps its image in the cache.
type leased struct {
	io.ReadSeekCloser
	end func() error
}

func (l *leased) Close() error { return errors.Join(l.ReadSeekCloser.Close(), l.end()) }

// memory is a blob that is in memory.
type memory struct{ *bytes.Reader }

func (*memory) Close() error { return nil }
