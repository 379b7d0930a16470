package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	imagesDir    = "images"
	downloadsDir = "downloads"
	filesDir     = "files"

	recordName   = "record.json"
	layerPrefix  = "layer-"
	downloadName = "file"
	partName     = "part"
	tempPrefix   = "tmp-"
	turnName     = "turn"
)

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ErrInUse: what is to be removed is being used.
var ErrInUse = errors.New("in use")

// Options of a cache.
type Options struct {
	// MaxBytes is how many bytes records, layers and downloads may take together.
	// 0 is no limit.
	MaxBytes int64
	// KeepLayers keeps layers after their last use, within MaxBytes. Without it they go
	// at once: a runtime that has pulled an image has no more use for them, and they
	// can be made again.
	KeepLayers bool
}

// Cache is one directory. It may be used by many goroutines and processes.
type Cache struct {
	dir  string
	opts Options

	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the one who makes it is done
}

// Exists tells by its error whether there is a cache in dir: Open would make one of any directory.
func Exists(dir string) error {
	_, err := os.ReadDir(filepath.Join(dir, imagesDir))
	return err
}

// Open opens the cache in dir, which it makes if there is none, and removes what a
// crash has left.
func Open(dir string, o Options) (*Cache, error) {
	c := &Cache{dir: dir, opts: o, busy: map[string]chan struct{}{}}
	for _, d := range []string{imagesDir, downloadsDir, filesDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	return c, c.sweep()
}

// sweep removes what no one uses and no one will.
func (c *Cache) sweep() error {
	return c.each(func(_, dir string) error { return c.tidy(dir) })
}

// tidy removes temporary files, layers that are not kept, and entries with nothing in
// them, unless someone uses the entry.
func (c *Cache) tidy(dir string) error {
	e, err := tryLock(dir, removing)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	worth := false
	for _, f := range list {
		switch name := f.Name(); {
		case strings.HasPrefix(name, tempPrefix), !c.opts.KeepLayers && strings.HasPrefix(name, layerPrefix):
			err = errors.Join(err, os.Remove(e.path(name)))
		case name == recordName, name == downloadName, name == partName:
			worth = true
		}
	}
	if !worth && err == nil {
		return e.remove()
	}
	return errors.Join(err, e.unlock())
}

// each calls fn for every entry.
func (c *Cache) each(fn func(kind, dir string) error) error {
	var errs []error
	for _, kind := range []string{imagesDir, downloadsDir} {
		list, err := os.ReadDir(filepath.Join(c.dir, kind))
		if err != nil {
			return err
		}
		for _, d := range list {
			if hexDigest.MatchString(d.Name()) {
				errs = append(errs, fn(kind, filepath.Join(c.dir, kind, d.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Cache) entryDir(kind, digest string) (string, error) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !hexDigest.MatchString(hex) {
		return "", fmt.Errorf("%q is no SHA-256 digest", digest)
	}
	return filepath.Join(c.dir, kind, hex), nil
}

// turn waits until no other goroutine makes something in the entry, and then until no
// other process does. The caller is in the entry, and calls done.
func (c *Cache) turn(ctx context.Context, e *entry) (done func(), err error) {
	for {
		c.mu.Lock()
		other, taken := c.busy[e.dir]
		if !taken {
			break
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	mine := make(chan struct{})
	c.busy[e.dir] = mine
	c.mu.Unlock()
	next := func() {
		c.mu.Lock()
		delete(c.busy, e.dir)
		c.mu.Unlock()
		close(mine)
	}
	lock, err := lockWait(ctx, e.path(turnName), unix.LOCK_EX)
	if err != nil {
		next()
		return nil, err
	}
	return func() {
		lock.unlock() // closing a lock file loses nothing
		next()
	}, nil
}

// Usage describes one entry.
type Usage struct {
	Kind   string // "image" or "download"
	Digest string // of the SIF file
	Size   int64  // on disk
	UsedAt time.Time
	Record *Record // of an image; nil if it has none that can be used
}

// List lists what there is, the last used first.
func (c *Cache) List() ([]Usage, error) {
	var all []Usage
	err := c.each(func(kind, dir string) error {
		u, err := usage(kind, dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err == nil {
			all = append(all, u)
		}
		return err
	})
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(b.UsedAt.Compare(a.UsedAt), cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Kind, b.Kind))
	})
	return all, err
}

func usage(kind, dir string) (Usage, error) {
	lock, err := os.Stat(filepath.Join(dir, lockName))
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Kind: strings.TrimSuffix(kind, "s"), Digest: "sha256:" + filepath.Base(dir), UsedAt: lock.ModTime()}
	if u.Size, err = size(dir); err != nil {
		return Usage{}, err
	}
	if kind == imagesDir {
		if r, err := (&entry{dir: dir}).readRecord(u.Digest); err == nil {
			u.Record = r
		}
	}
	return u, nil
}

// Remove removes what there is of a SIF file, and gives the bytes that became free.
func (c *Cache) Remove(digest string) (int64, error) {
	var freed int64
	found := false
	for _, kind := range []string{imagesDir, downloadsDir} {
		dir, err := c.entryDir(kind, digest)
		if err != nil {
			return 0, err
		}
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		found = true
		n, err := removeDir(dir)
		if err != nil {
			return freed, fmt.Errorf("remove %s: %w", digest, err)
		}
		freed += n
	}
	if !found {
		return 0, fmt.Errorf("remove %s: %w", digest, fs.ErrNotExist)
	}
	return freed, nil
}

// Discard removes one entry that List has shown, unless it is in use or was used since
// then, and tells whether it did.
func (c *Cache) Discard(u Usage) (bool, error) {
	dir, err := c.entryDir(u.Kind+"s", u.Digest)
	if err != nil {
		return false, err
	}
	now, err := usage(u.Kind+"s", dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now.UsedAt.After(u.UsedAt) {
		return false, nil
	}
	if err == nil {
		_, err = removeDir(dir)
	}
	if errors.Is(err, ErrInUse) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove %s: %w", u.Digest, err)
	}
	return true, nil
}

func removeDir(dir string) (int64, error) {
	e, err := tryLock(dir, removing)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return 0, ErrInUse
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // someone else was faster
	}
	if err != nil {
		return 0, err
	}
	n, err := size(dir)
	return n, errors.Join(err, e.remove())
}

// Prune removes what was not used for the longest time until at most keep bytes are
// left, and gives what it removed. What is in use stays.
func (c *Cache) Prune(keep int64) ([]Usage, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	var total int64
	for _, u := range all {
		total += u.Size
	}
	var gone []Usage
	for _, u := range slices.Backward(all) {
		if total <= keep {
			break
		}
		dir, err := c.entryDir(u.Kind+"s", u.Digest)
		if err != nil {
			return gone, err
		}
		if _, err := removeDir(dir); errors.Is(err, ErrInUse) {
			continue
		} else if err != nil {
			return gone, err
		}
		total -= u.Size
		gone = append(gone, u)
	}
	return gone, nil
}

// limit keeps the cache within its size.
func (c *Cache) limit() error {
	if c.opts.MaxBytes <= 0 {
		return nil
	}
	_, err := c.Prune(c.opts.MaxBytes)
	return err
}
