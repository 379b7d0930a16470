package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Image is a converted image in use: as long as it is not closed, its record and those
// of its layers that are there stay. Close it once. Its methods may be called by many
// goroutines.
type Image struct {
	c      *Cache
	entry  *entry
	source string
}

// Work is where the layers go that are being made. It is for one goroutine.
type Work struct {
	entry *entry
	keep  bool
	temps []*os.File
}

// Image gives an image, or fs.ErrNotExist when it has to be made.
func (c *Cache) Image(ctx context.Context, source string) (*Image, *Record, error) {
	dir, err := c.entryDir(imagesDir, source)
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, recordName)); err != nil {
		return nil, nil, err
	}
	e, err := enter(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	i := &Image{c, e, source}
	r, err := e.readRecord(source)
	if err == nil {
		err = e.touch()
	}
	if err != nil {
		return nil, nil, errors.Join(err, i.Close())
	}
	return i, r, nil
}

// Make gives an image, and makes it first when there is none or not the wanted one. Who
// asks at the same time, in this process or another, waits and shares the result. build
// is given the record there is, or nil, and returns the one that shall be there; the
// layers that it wrote are kept only if it succeeds.
func (c *Cache) Make(ctx context.Context, source string, wanted func(*Record) bool, build func(*Work, *Record) (*Record, error)) (*Image, *Record, error) {
	img, r, err := c.Image(ctx, source)
	if err == nil && wanted(r) {
		return img, r, nil
	}
	if err == nil {
		err = img.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	dir, err := c.entryDir(imagesDir, source)
	if err != nil {
		return nil, nil, err
	}
	e, err := enter(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	img = &Image{c, e, source}
	if r, err = img.make(ctx, wanted, build); err == nil {
		err = c.limit()
	}
	if err != nil {
		return nil, nil, errors.Join(err, img.Close())
	}
	return img, r, nil
}

func (i *Image) make(ctx context.Context, wanted func(*Record) bool, build func(*Work, *Record) (*Record, error)) (*Record, error) {
	done, err := i.c.turn(ctx, i.entry)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := i.entry.readRecord(i.source)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		r = nil
	} else if wanted(r) {
		return r, i.entry.touch()
	}
	w := &Work{entry: i.entry, keep: i.c.opts.KeepLayers}
	defer w.abort()
	if r, err = build(w, r); err != nil {
		return nil, err
	}
	if err := w.commit(); err != nil {
		return nil, err
	}
	if err := i.entry.writeRecord(r); err != nil {
		return nil, err
	}
	return r, i.entry.touch()
}

// Layer makes a file for layer n, which is closed with the work.
func (w *Work) Layer(n int) (io.Writer, error) {
	f, err := os.CreateTemp(w.entry.dir, tempPrefix)
	if err != nil {
		return nil, err
	}
	for len(w.temps) <= n {
		w.temps = append(w.temps, nil)
	}
	w.temps[n] = f
	return f, nil
}

// commit gives the layers their names. A layer that is kept for later must be on disk
// first. One that is only kept until it has been pulled need not: after a crash it is
// removed.
func (w *Work) commit() error {
	for n, f := range w.temps {
		if f == nil {
			continue
		}
		if w.keep {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if err := os.Rename(f.Name(), w.entry.path(layerName(n))); err != nil {
			return err
		}
		w.temps[n] = nil
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// abort removes what was not committed.
func (w *Work) abort() {
	for _, f := range w.temps {
		if f != nil {
			f.Close()
			os.Remove(f.Name()) // else the next one to leave the entry does it
		}
	}
}

func layerName(n int) string { return layerPrefix + strconv.Itoa(n) }

// OpenLayer opens layer n, or gives fs.ErrNotExist when it has to be made again.
func (i *Image) OpenLayer(n int, l Layer) (*os.File, error) {
	f, err := os.Open(i.entry.path(layerName(n)))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != l.Size {
		err = fmt.Errorf("a layer with %d bytes instead of %d: %w", info.Size(), l.Size, fs.ErrNotExist)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// MakeLayers makes the layers again if some are not there. build has to see to it that
// they are the ones in the record.
func (i *Image) MakeLayers(ctx context.Context, r *Record, build func(*Work) error) error {
	done, err := i.c.turn(ctx, i.entry)
	if err != nil {
		return err
	}
	defer done()
	missing := false
	for n, l := range r.Layers {
		f, err := i.OpenLayer(n, l)
		if errors.Is(err, fs.ErrNotExist) {
			missing = true
			continue
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if !missing {
		return nil
	}
	w := &Work{entry: i.entry, keep: i.c.opts.KeepLayers}
	defer w.abort()
	if err := build(w); err != nil {
		return err
	}
	if err := w.commit(); err != nil {
		return err
	}
	return i.c.limit()
}

// Close ends the use. Layers that are not kept go with their last user.
func (i *Image) Close() error {
	return errors.Join(i.entry.unlock(), i.c.tidy(i.entry.dir))
}
