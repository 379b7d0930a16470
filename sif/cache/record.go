package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// formatVersion changes whenever the conversion or the record does, so that older
// records are made anew.
const formatVersion = 1

const maxRecord = 16 << 20

// Record is what a SIF file was converted to.
type Record struct {
	Version      int       `json:"version"`
	Source       string    `json:"source"` // digest of the SIF file
	Names        []string  `json:"names"`  // how it was called, the latest last
	Kind         string    `json:"kind"`
	Architecture string    `json:"architecture"`
	Manifest     []byte    `json:"manifest"`
	Digest       string    `json:"digest"`
	Config       []byte    `json:"config"`
	ConfigDigest string    `json:"config_digest"`
	Layers       []Layer   `json:"layers"`
	ConvertedAt  time.Time `json:"converted_at"`
	// Verified has, for each set of keys that signatures were verified with, its ID and
	// the names of the keys that had signed.
	Verified map[string][]string `json:"verified,omitempty"`
}

// Layer is one layer of the OCI image.
type Layer struct {
	MediaType string `json:"media_type"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// check finds out whether a record is whole.
func (r *Record) check(source string) bool {
	return r.Version == formatVersion && r.Source == source && len(r.Layers) > 0 &&
		r.Digest == digestOf(r.Manifest) && r.ConfigDigest == digestOf(r.Config)
}

// AddName notes how the file is called now. The last few names are kept.
func (r *Record) AddName(name string) (changed bool) {
	if len(r.Names) > 0 && r.Names[len(r.Names)-1] == name {
		return false
	}
	r.Names = append(slices.DeleteFunc(r.Names, func(n string) bool { return n == name }), name)
	if len(r.Names) > 8 {
		r.Names = r.Names[1:]
	}
	return true
}

// readRecord gives fs.ErrNotExist when there is none, or none that can be used.
func (e *entry) readRecord(source string) (*Record, error) {
	f, err := os.Open(e.path(recordName))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	var r Record
	if len(b) > maxRecord || json.Unmarshal(b, &r) != nil || !r.check(source) {
		return nil, fmt.Errorf("the record of %s is not whole: %w", source, fs.ErrNotExist)
	}
	return &r, nil
}

func (e *entry) writeRecord(r *Record) error {
	r.Version = formatVersion
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeFile(e.path(recordName), b)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
