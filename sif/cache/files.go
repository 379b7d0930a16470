package cache

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxFiles is how many files' digests are remembered.
const maxFiles = 1024

// Known gives the digest that a file had when it was last in the given state, if that is
// remembered. state must name all that changes when the content does.
//
// A file whose digest is remembered wrongly can only lead to content that it once had
// and that was checked then, never to content that no one has read.
func (c *Cache) Known(state string) (digest string, ok bool) {
	b, err := os.ReadFile(c.filePath(state))
	if err != nil {
		return "", false
	}
	kept, digest, found := strings.Cut(string(b), "\n")
	if !found || kept != state || !hexDigest.MatchString(strings.TrimPrefix(digest, "sha256:")) {
		return "", false
	}
	return digest, true
}

// Learn remembers a file's digest.
func (c *Cache) Learn(state, digest string) error {
	path := c.filePath(state)
	if err := writeFile(path, []byte(state+"\n"+digest)); err != nil {
		return err
	}
	return c.forgetOldFiles(filepath.Dir(path))
}

func (c *Cache) filePath(state string) string {
	return filepath.Join(c.dir, filesDir, strings.TrimPrefix(digestOf([]byte(state)), "sha256:"))
}

// forgetOldFiles keeps the number of files within its limit.
func (c *Cache) forgetOldFiles(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil || len(list) <= maxFiles {
		return err
	}
	type file struct {
		name string
		at   time.Time
	}
	var all []file
	for _, f := range list {
		if info, err := f.Info(); err == nil {
			all = append(all, file{f.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b file) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) })
	for _, f := range all[:max(len(all)-maxFiles*3/4, 0)] {
		if err := os.Remove(filepath.Join(dir, f.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
