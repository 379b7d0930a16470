package imported

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/sif/reference"
)

// ErrNotFound: no imported image is meant.
var ErrNotFound = errors.New("there is no such imported image")

// Directory is what the store of a node is called, in its state directory.
const Directory = "imported"

// SIFDirectory is where a store has its SIF files.
func SIFDirectory(dir string) string { return filepath.Join(dir, "sif") }

// Store is one directory. It may be used by many goroutines and processes.
type Store struct{ dir string }

// Open opens the store in dir, which need not exist: a store in which nothing was
// ever imported is empty.
func Open(dir string) *Store { return &Store{dir} }

// create makes the directories.
func (s *Store) create() error {
	for _, d := range []string{"images", "blobs", "sif", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return fmt.Errorf("make the directory of imported images: %w", err)
		}
	}
	return nil
}

// List returns the images, the latest import first.
func (s *Store) List() ([]*Record, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "images"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the imported images: %w", err)
	}
	var out []*Record
	for _, e := range entries {
		r, err := s.readRecord(filepath.Join(s.dir, "images", e.Name()))
		if err != nil {
			return nil, err
		}
		if r != nil {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *Record) int {
		return cmp.Or(b.ImportedAt.Compare(a.ImportedAt), cmp.Compare(a.Digest, b.Digest))
	})
	return out, nil
}

// Find returns the image that a reference means, or ErrNotFound.
func (s *Store) Find(ref imageref.Reference) (*Record, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(r *Record) bool { return r.means(ref) }); i >= 0 {
		return all[i], nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
}

// Use keeps everything that is in the store now there until release is called, and so
// holds removals up.
func (s *Store) Use(ctx context.Context) (release func() error, err error) {
	return lock(ctx, filepath.Join(s.dir, "lock"), false, true)
}

// OpenBlob opens a part of an image. Hold Use meanwhile.
func (s *Store) OpenBlob(digest string) (*os.File, error) {
	hex, err := hexOf(digest)
	if err != nil {
		return nil, err
	}
	return os.Open(filepath.Join(s.dir, "blobs", hex))
}

// ReadDocument reads a small part of an image.
func (s *Store) ReadDocument(b Blob) ([]byte, error) {
	f, err := s.OpenBlob(b.Digest)
	if err != nil {
		return nil, err
	}
	text := make([]byte, b.Size)
	_, err = f.ReadAt(text, 0)
	return text, errors.Join(err, f.Close())
}

// Remove removes what a name (ghcr.io/org/algo:1, sif:algo), a digest or the
// beginning of one means: a name alone goes if the image has others, and the image goes
// with its last name. It waits while an image is given to the runtime. It returns
// what is gone.
func (s *Store) Remove(ctx context.Context, what string) (gone []string, err error) {
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, what)
	}
	unlock, err := lock(ctx, filepath.Join(s.dir, "lock"), true, true)
	if err != nil {
		return nil, fmt.Errorf("wait until no imported image is in use: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if strings.HasPrefix(what, reference.SIF+":") {
		return s.removeSIF(what)
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	r, name, err := choose(all, what)
	if err != nil {
		return nil, err
	}
	if name != "" && len(r.Names) > 1 {
		r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return n == name })
		return []string{name}, s.writeRecord(r)
	}
	path, err := s.recordPath(r.Digest)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, fmt.Errorf("remove the imported image %s: %w", r.Digest, err)
	}
	return append(slices.Clone(r.Names), r.Digest), s.sweep()
}

// choose finds the one image that is meant, and the name by which it is.
func choose(all []*Record, what string) (_ *Record, name string, err error) {
	if ref, err := imageref.Parse(what); err == nil {
		for _, r := range all {
			if r.means(ref) {
				if ref.Digest == "" {
					name = ref.String()
				}
				return r, name, nil
			}
		}
	}
	var found *Record
	hex := strings.TrimPrefix(what, "sha256:")
	for _, r := range all {
		if hex == "" || !strings.HasPrefix(strings.TrimPrefix(r.Digest, "sha256:"), hex) {
			continue
		}
		if found != nil {
			return nil, "", fmt.Errorf("the digests of several imported images begin with %s: write more of it", what)
		}
		found = r
	}
	if found == nil {
		return nil, "", fmt.Errorf("%w: %s", ErrNotFound, what)
	}
	return found, "", nil
}

// sweep removes what no image has any more, and what a crash has left. The store is
// locked alone.
func (s *Store) sweep() error {
	all, err := s.List()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, r := range all {
		for _, d := range r.blobs() {
			wanted[strings.TrimPrefix(d, "sha256:")] = true
		}
	}
	var errs []error
	for _, dir := range []string{"blobs", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		errs = append(errs, err)
		for _, e := range entries {
			if dir == "tmp" || !wanted[e.Name()] {
				errs = append(errs, os.RemoveAll(filepath.Join(s.dir, dir, e.Name())))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what belongs to no imported image: %w", err)
	}
	return nil
}
