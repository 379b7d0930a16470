package imported

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/v6node/v6node/internal/newfile"
	"github.com/v6node/v6node/node/image/archive"
	"github.com/v6node/v6node/node/image/imageref"
)

// Adding is the right to add to a store. End it.
type Adding struct {
	s      *Store
	unlock func() error
}

// Add begins to add images; removals wait until End. What an earlier attempt has left
// behind is removed, if nobody uses the store.
func (s *Store) Add(ctx context.Context) (*Adding, error) {
	if err := s.create(); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, "lock")
	if alone, err := lock(ctx, path, true, false); err == nil {
		if err := errors.Join(s.sweep(), alone()); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, errBusy) {
		return nil, err
	}
	unlock, err := lock(ctx, path, false, true)
	if err != nil {
		return nil, err
	}
	return &Adding{s, unlock}, nil
}

// End ends it.
func (a *Adding) End() error { return a.unlock() }

// TempDir is where files may be that are gone after the next crash at the latest.
func (a *Adding) TempDir() string { return filepath.Join(a.s.dir, "tmp") }

// Image adds an image of an archive, under names that are canonical references with a
// tag; a name that meant another image means this one from now on. The image that
// is there already only gets the names. progress is told how much of the layers was
// read; may be nil.
func (a *Adding) Image(ctx context.Context, from *archive.Archive, img *archive.Image, names []imageref.Reference, progress func(done, total int64)) (_ *Record, err error) {
	var total, before int64
	for _, l := range img.Layers {
		total += l.Size
	}
	r := &Record{OS: img.OS, Arch: img.Architecture, Kind: string(from.Kind), Signatures: from.Signatures, ImportedAt: time.Now().UTC().Truncate(time.Second), Names: []string{}}
	for i := range img.Layers {
		l := &img.Layers[i]
		if err := a.layer(ctx, from, l, func(done, _ int64) {
			if progress != nil {
				progress(before+done, total)
			}
		}); err != nil {
			return nil, err
		}
		before += l.Size
		r.Layers = append(r.Layers, Blob{l.MediaType, l.Digest, l.Size})
	}
	if err := img.Seal(); err != nil {
		return nil, err
	}
	r.Digest = img.Digest
	for _, d := range img.Documents {
		f, err := a.s.temp()
		if err != nil {
			return nil, err
		}
		_, err = f.Write(d.Content)
		if err := a.blob(f, d.Digest, err); err != nil {
			return nil, err
		}
		b := Blob{d.MediaType, d.Digest, int64(len(d.Content))}
		switch d.Digest {
		case img.Manifest:
			r.Manifest = b
		case img.Config:
			r.Config = b
		}
		r.Documents = append(r.Documents, d.Digest)
		r.Size += b.Size
	}
	r.Size += total
	return r, a.register(ctx, r, names)
}

// layer adds a layer.
func (a *Adding) layer(ctx context.Context, from *archive.Archive, l *archive.Layer, progress func(done, total int64)) error {
	f, err := a.s.temp()
	if err != nil {
		return err
	}
	err = from.CopyLayer(ctx, l, f, progress)
	return a.blob(f, l.Digest, err)
}

// blob puts what was written where its digest belongs.
func (a *Adding) blob(f *temp, digest string, err error) error {
	if err != nil {
		return f.keep("", err)
	}
	hex, err := hexOf(digest)
	return f.keep(filepath.Join(a.s.dir, "blobs", hex), err)
}

// register writes down that an image is there, and what it is called.
func (a *Adding) register(ctx context.Context, r *Record, names []imageref.Reference) (err error) {
	unlock, err := lock(ctx, filepath.Join(a.s.dir, "names"), true, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	all, err := a.s.List()
	if err != nil {
		return err
	}
	for _, old := range all {
		if old.Digest == r.Digest {
			r.Names, r.Repositories = old.Names, old.Repositories
			if len(r.Signatures) == 0 {
				r.Signatures = old.Signatures
			}
		}
	}
	for _, n := range names {
		if name := n.String(); n.Digest == "" && !slices.Contains(r.Names, name) {
			r.Names = append(r.Names, name)
		}
		if repository := n.Name(); !slices.Contains(r.Repositories, repository) {
			r.Repositories = append(r.Repositories, repository)
		}
	}
	// First the new image: a crash leaves a name with two images, of which the latest counts.
	if err := a.s.writeRecord(r); err != nil {
		return err
	}
	for _, old := range all {
		kept := slices.DeleteFunc(slices.Clone(old.Names), func(n string) bool { return slices.Contains(r.Names, n) })
		if old.Digest != r.Digest && len(kept) < len(old.Names) {
			old.Names = kept
			if err := a.s.writeRecord(old); err != nil {
				return err
			}
		}
	}
	return nil
}

// temp is a file that is being written.
type temp struct{ *os.File }

func (s *Store) temp() (*temp, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "new-")
	if err != nil {
		return nil, err
	}
	return &temp{f}, nil
}

// keep gives the file its name once it is on the disk, or removes it after an error.
func (f *temp) keep(path string, err error) error {
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		return newfile.SyncDir(filepath.Dir(path))
	}
	if gone := os.Remove(f.Name()); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
