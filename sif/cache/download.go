package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/v6node/v6node/internal/newfile"
)

// Download gives a file out of a registry, opened for reading, and fetches it first when
// it is not there. fetch is given a file with what an interrupted attempt has left, and
// fills it; what it leaves after a failure is there at the next attempt. The file's
// content is for the caller to verify. It may go from the cache while it is open.
func (c *Cache) Download(ctx context.Context, digest string, fetch func(*os.File) error) (*os.File, error) {
	dir, err := c.entryDir(downloadsDir, digest)
	if err != nil {
		return nil, err
	}
	e, err := enter(ctx, dir)
	if err != nil {
		return nil, err
	}
	f, err := c.download(ctx, e, fetch)
	if err == nil {
		err = c.limit()
	}
	if err = errors.Join(err, e.unlock(), c.tidy(dir)); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}

func (c *Cache) download(ctx context.Context, e *entry, fetch func(*os.File) error) (*os.File, error) {
	done, err := c.turn(ctx, e)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := e.touch(); err != nil {
		return nil, err
	}
	f, err := os.Open(e.path(downloadName))
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	part, err := os.OpenFile(e.path(partName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = fetch(part); err == nil {
		err = part.Sync()
	}
	if err = errors.Join(err, part.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(e.path(partName), e.path(downloadName)); err != nil {
		return nil, err
	}
	if err := newfile.SyncDir(e.dir); err != nil {
		return nil, err
	}
	return os.Open(e.path(downloadName))
}

// Forget removes a downloaded file whose content turned out to be wrong.
func (c *Cache) Forget(digest string) error {
	dir, err := c.entryDir(downloadsDir, digest)
	if err != nil {
		return err
	}
	_, err = removeDir(dir)
	return err
}
