package imported

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/v6node/v6node/internal/copying"
	"github.com/v6node/v6node/sif/reference"
)

// SIFFile is an imported SIF file.
type SIFFile struct {
	Name       string // sif:NAME
	Size       int64
	ImportedAt time.Time
}

const sifSuffix = ".sif"

// SIF copies a SIF file into the store under the name of a sif: reference, in the place
// of one that has the name, and verifies its digest on the way.
func (a *Adding) SIF(ctx context.Context, src io.ReaderAt, size int64, digest string, ref reference.Reference, progress func(done, total int64)) error {
	path := filepath.Join(SIFDirectory(a.s.dir), filepath.FromSlash(strings.TrimSuffix(ref.Name, sifSuffix)+sifSuffix))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := a.s.temp()
	if err != nil {
		return err
	}
	sum := sha256.New()
	err = copying.Copy(ctx, io.MultiWriter(f, sum), io.NewSectionReader(src, 0, size), func(done int64) {
		if progress != nil {
			progress(done, size)
		}
	})
	if err == nil && fmt.Sprintf("sha256:%x", sum.Sum(nil)) != digest {
		err = errors.New("the file changed while it was read: import it again when it is complete")
	}
	return f.keep(path, err)
}

// ListSIF returns the SIF files, sorted by name.
func (s *Store) ListSIF() ([]SIFFile, error) {
	root := SIFDirectory(s.dir)
	var out []SIFFile
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nothing was imported, or it is gone meanwhile
		}
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, sifSuffix) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err == nil {
			out = append(out, SIFFile{reference.SIF + ":" + strings.TrimSuffix(filepath.ToSlash(name), sifSuffix), info.Size(), info.ModTime()})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the imported SIF files: %w", err)
	}
	return out, nil
}

// removeSIF removes a SIF file. The store is locked alone.
func (s *Store) removeSIF(what string) ([]string, error) {
	ref, err := reference.Parse(what)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, errors.New("an imported SIF file is removed by its name: leave the digest out")
	}
	all, err := s.ListSIF()
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(ref.String(), sifSuffix)
	for _, f := range all {
		if f.Name == name {
			path := filepath.Join(SIFDirectory(s.dir), filepath.FromSlash(strings.TrimPrefix(name, reference.SIF+":"))+sifSuffix)
			return []string{name}, os.Remove(path)
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, what)
}
