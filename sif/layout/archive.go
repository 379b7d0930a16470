package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const block = 512

// writeArchive writes a tar whose headers of layers are filled in afterwards: only then
// their names and sizes are known, and nothing needs to be written twice.
func writeArchive(ctx context.Context, d Destination, img Image) (_ *Result, err error) {
	if _, err := os.Lstat(d.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, fmt.Errorf("%w: %s; remove it first", ErrExists, d.Path))
	}
	f, err := os.CreateTemp(filepath.Dir(d.Path), ".tmp-")
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if rerr := os.Remove(f.Name()); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	a := &archive{f: f}
	res, err := img(ctx, a.layer)
	if err != nil {
		return nil, err
	}
	if err := a.finish(res, d.Tag); err != nil {
		return nil, err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return nil, err
	}
	// Not a rename, which would replace what someone else has made meanwhile.
	if err := os.Link(f.Name(), d.Path); err != nil {
		return nil, err
	}
	return res, nil
}

// archive is a tar that is being written.
type archive struct {
	f      *os.File
	at     int64   // where the next header belongs
	starts []int64 // of the layers' headers
	layers []*entry
}

// entry counts what is written into one entry of the tar.
type entry struct {
	f    *os.File
	size int64
}

func (e *entry) Write(p []byte) (int, error) {
	n, err := e.f.Write(p)
	e.size += int64(n)
	return n, err
}

// layer leaves room for a header. It pads the layer before.
func (a *archive) layer(int) (io.Writer, error) {
	if err := a.pad(); err != nil {
		return nil, err
	}
	a.starts = append(a.starts, a.at)
	e := &entry{f: a.f}
	a.layers = append(a.layers, e)
	_, err := a.f.Write(make([]byte, block))
	return e, err
}

func (a *archive) pad() error {
	if len(a.layers) == 0 {
		return nil
	}
	last := a.layers[len(a.layers)-1]
	a.at = a.starts[len(a.starts)-1] + block + (last.size+block-1)/block*block
	_, err := a.f.Write(make([]byte, -last.size&(block-1)))
	return err
}

// finish fills in the headers of the layers and adds everything else.
func (a *archive) finish(res *Result, tag string) error {
	if err := a.pad(); err != nil {
		return err
	}
	for n, e := range a.layers {
		h, err := header(blobName(res.Layers[n]), e.size)
		if err != nil {
			return err
		}
		if _, err := a.f.WriteAt(h, a.starts[n]); err != nil {
			return err
		}
	}
	idx := &index{}
	idx.add(res.Manifest, tag)
	raw, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	w := tar.NewWriter(a.f)
	for _, x := range []struct {
		name string
		data []byte
	}{
		{blobName(digestOf(res.Config)), res.Config},
		{blobName(digestOf(res.Manifest)), res.Manifest},
		{"oci-layout", []byte(layoutVersion)},
		{"index.json", raw},
	} {
		if err := w.WriteHeader(tarHeader(x.name, int64(len(x.data)))); err != nil {
			return err
		}
		if _, err := w.Write(x.data); err != nil {
			return err
		}
	}
	return w.Close()
}

func blobName(digest string) string { return "blobs/sha256/" + hexOf(digest) }

// tarHeader is in GNU's format, which says any size in one block.
func tarHeader(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatGNU}
}

func header(name string, size int64) ([]byte, error) {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(tarHeader(name, size)); err != nil {
		return nil, err
	}
	if b.Len() != block {
		return nil, fmt.Errorf("a tar header of %d bytes", b.Len())
	}
	return b.Bytes(), nil
}
