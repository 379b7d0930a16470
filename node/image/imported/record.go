package imported

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/v6node/v6node/node/image/archive"
	"github.com/v6node/v6node/node/image/imageref"
)

// Record is what is known of an imported image.
type Record struct {
	// Names are the canonical references, with a tag, that mean this image.
	Names []string `json:"names"`
	// Repositories are those of all names that it ever had: with them before it, its
	// digests name it also when a tag has come to mean another image.
	Repositories []string `json:"repositories"`
	// Digest is that of the index, or of the manifest where there is none.
	Digest     string    `json:"digest"`
	Manifest   Blob      `json:"manifest"`
	Config     Blob      `json:"config"`
	Layers     []Blob    `json:"layers"`
	Documents  []string  `json:"documents"` // digests of index, manifest and configuration
	OS         string    `json:"os"`
	Arch       string    `json:"architecture"`
	Kind       string    `json:"kind"`
	Size       int64     `json:"size"` // bytes, of all blobs
	ImportedAt time.Time `json:"imported_at"`
	// Signatures came with it, in the same archive.
	Signatures []archive.Signature `json:"signatures,omitempty"`
}

// Blob is a part of an image.
type Blob struct {
	MediaType string `json:"media_type"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

const maxRecord = 8 << 20 // most of it signatures

// means tells whether a reference is to this image.
func (r *Record) means(ref imageref.Reference) bool {
	if ref.Digest != "" {
		return (ref.Digest == r.Digest || ref.Digest == r.Manifest.Digest) && slices.Contains(r.Repositories, ref.Name())
	}
	return slices.Contains(r.Names, ref.String())
}

// blobs are the digests of all that the image is made of.
func (r *Record) blobs() []string {
	out := slices.Clone(r.Documents)
	for _, l := range r.Layers {
		out = append(out, l.Digest)
	}
	return out
}

// hexOf is the name of a digest's file.
func hexOf(digest string) (string, error) {
	if !imageref.IsDigest(digest) {
		return "", fmt.Errorf("%q is no SHA-256 digest", digest)
	}
	return strings.TrimPrefix(digest, "sha256:"), nil
}

func (s *Store) recordPath(digest string) (string, error) {
	hex, err := hexOf(digest)
	return filepath.Join(s.dir, "images", hex+".json"), err
}

// readRecord returns nil where there is none.
func (s *Store) readRecord(path string) (*Record, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxRecord {
		err = errors.New("it is too long")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	r := &Record{}
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err == nil && filepath.Base(path) != strings.TrimPrefix(r.Digest, "sha256:")+".json" {
		err = errors.New("it is about another image")
	}
	if err != nil {
		return nil, fmt.Errorf("the record of an imported image, %s, cannot be read: remove it and import the image again: %w", path, err)
	}
	return r, nil
}

// writeRecord replaces a record as a whole.
func (s *Store) writeRecord(r *Record) error {
	path, err := s.recordPath(r.Digest)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f, err := s.temp()
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return f.keep(path, err)
}
