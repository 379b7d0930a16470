package layout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Result is what an image turned out to be when its layers were written.
type Result struct {
	Manifest []byte
	Config   []byte
	Layers   []string // digests
}

// Image can write its layers: each, in order, to what open gives for it, then it says
// what it is.
type Image func(ctx context.Context, open func(n int) (io.Writer, error)) (*Result, error)

var (
	// ErrDestination: the text names no place to write to.
	ErrDestination = errors.New("not a destination")
	// ErrExists: there is something else already.
	ErrExists = errors.New("the destination exists already")
)

const (
	layoutVersion = `{"imageLayoutVersion":"1.0.0"}`
	manifestType  = "application/vnd.oci.image.manifest.v1+json"
	indexType     = "application/vnd.oci.image.index.v1+json"
	refName       = "org.opencontainers.image.ref.name"
	maxIndex      = 4 << 20
)

var tagForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Destination is where an image is written.
type Destination struct {
	Archive bool
	Path    string
	Tag     string // "" for none
}

// Parse reads oci:DIR[:TAG] or oci-archive:FILE[:TAG].
func Parse(text string) (Destination, error) {
	kind, rest, ok := strings.Cut(text, ":")
	if !ok || kind != "oci" && kind != "oci-archive" || rest == "" {
		return Destination{}, fmt.Errorf("%w: %q; write oci:DIRECTORY[:TAG] or oci-archive:FILE[:TAG]", ErrDestination, text)
	}
	d := Destination{Archive: kind == "oci-archive", Path: rest}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.ContainsRune(rest[i:], '/') {
		d.Path, d.Tag = rest[:i], rest[i+1:]
		if d.Path == "" || !tagForm.MatchString(d.Tag) {
			return Destination{}, fmt.Errorf("%w: %q; a tag consists of letters, digits and . _ -", ErrDestination, text)
		}
	}
	return d, nil
}

// Write writes an image. A directory may hold other images already; a file may not exist.
func Write(ctx context.Context, d Destination, img Image) (*Result, error) {
	if d.Archive {
		return writeArchive(ctx, d, img)
	}
	return writeDir(ctx, d, img)
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// descriptor keeps what it does not know.
type descriptor map[string]any

func describe(manifest []byte, tag string) descriptor {
	d := descriptor{"mediaType": manifestType, "digest": digestOf(manifest), "size": len(manifest)}
	if tag != "" {
		d["annotations"] = map[string]any{refName: tag}
	}
	return d
}

// add adds an image to an index, in the place of the one with its tag or digest.
func (x *index) add(manifest []byte, tag string) {
	d := describe(manifest, tag)
	kept := []descriptor{}
	for _, m := range x.Manifests {
		notes, _ := m["annotations"].(map[string]any)
		name, _ := notes[refName].(string)
		if name == tag && (tag != "" || m["digest"] == d["digest"]) {
			continue
		}
		kept = append(kept, m)
	}
	x.SchemaVersion, x.MediaType, x.Manifests = 2, indexType, append(kept, d)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func writeDir(ctx context.Context, d Destination, img Image) (_ *Result, err error) {
	blobs := filepath.Join(d.Path, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	idx, err := readIndex(filepath.Join(d.Path, "index.json"))
	if err != nil {
		return nil, err
	}
	var temps []*os.File
	defer func() {
		for _, f := range temps {
			err = errors.Join(err, f.Close())
			if rerr := os.Remove(f.Name()); !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
		}
	}()
	res, err := img(ctx, func(int) (io.Writer, error) {
		f, err := os.CreateTemp(blobs, ".tmp-")
		if err == nil {
			temps = append(temps, f)
		}
		return f, err
	})
	if err != nil {
		return nil, err
	}
	for n, f := range temps {
		if err := errors.Join(f.Sync(), f.Chmod(0o644), os.Rename(f.Name(), filepath.Join(blobs, hexOf(res.Layers[n])))); err != nil {
			return nil, err
		}
	}
	for _, b := range [][]byte{res.Config, res.Manifest} {
		if err := writeFile(filepath.Join(blobs, hexOf(digestOf(b))), b); err != nil {
			return nil, err
		}
	}
	if err := writeFile(filepath.Join(d.Path, "oci-layout"), []byte(layoutVersion)); err != nil {
		return nil, err
	}
	idx.add(res.Manifest, d.Tag)
	raw, err := json.Marshal(idx)
	if err != nil {
		return nil, err
	}
	return res, writeFile(filepath.Join(d.Path, "index.json"), raw)
}

func readIndex(path string) (*index, error) {
	idx := &index{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return idx, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, idx); err != nil || len(b) > maxIndex {
		return nil, fmt.Errorf("%w, but %s is no OCI index", ErrExists, path)
	}
	return idx, nil
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// writeFile writes a file that is there as a whole or not at all.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
