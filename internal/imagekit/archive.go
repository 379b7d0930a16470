package imagekit

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Named is an image or an index (v1.Image, v1.ImageIndex) with its names.
type Named struct {
	Names    []string
	What     any
	Unlisted bool // in the index of an OCI layout
}

// entries is a tar that is being written, each entry once.
type entries struct {
	tw   *tar.Writer
	have map[string]bool
}

func (e *entries) add(name string, content []byte) error {
	if e.have[name] {
		return nil
	}
	e.have[name] = true
	if err := e.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := e.tw.Write(content)
	return err
}

func (e *entries) addJSON(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return e.add(name, text)
}

func readAll(open func() (io.ReadCloser, error)) ([]byte, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

// SaveDocker writes images as `docker save` did before it knew OCI layouts: layers
// unpacked, and no manifests.
func SaveDocker(w io.Writer, images ...Named) error {
	type item struct {
		Config           string
		RepoTags, Layers []string
	}
	var list []item
	e := &entries{tar.NewWriter(w), map[string]bool{}}
	for _, n := range images {
		img := n.What.(v1.Image)
		id, err := img.ConfigName()
		if err != nil {
			return err
		}
		config, err := img.RawConfigFile()
		if err != nil {
			return err
		}
		i := item{Config: id.Hex + ".json", RepoTags: n.Names}
		if err := e.add(i.Config, config); err != nil {
			return err
		}
		layers, err := img.Layers()
		if err != nil {
			return err
		}
		for _, l := range layers {
			d, err := l.DiffID()
			if err != nil {
				return err
			}
			content, err := readAll(l.Uncompressed)
			if err != nil {
				return err
			}
			i.Layers = append(i.Layers, d.Hex+"/layer.tar")
			if err := e.add(d.Hex+"/layer.tar", content); err != nil {
				return err
			}
		}
		list = append(list, i)
	}
	if err := e.addJSON("manifest.json", list); err != nil {
		return err
	}
	return e.tw.Close()
}

// SaveOCI writes images and indexes as a tar of an OCI layout. The names are
// annotations of the kind that podman writes, org.opencontainers.image.ref.name.
func SaveOCI(w io.Writer, images ...Named) error {
	e := &entries{tar.NewWriter(w), map[string]bool{}}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
	for _, n := range images {
		d, err := e.blobsOf(n.What)
		if err != nil {
			return err
		}
		for _, name := range n.Names {
			named := d
			named.Annotations = map[string]string{"org.opencontainers.image.ref.name": name}
			index.Manifests = append(index.Manifests, named)
		}
		if len(n.Names) == 0 && !n.Unlisted {
			index.Manifests = append(index.Manifests, d)
		}
	}
	if err := e.addJSON("index.json", index); err != nil {
		return err
	}
	if err := e.addJSON("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}); err != nil {
		return err
	}
	return e.tw.Close()
}

// blobsOf adds all that an image or index is made of.
func (e *entries) blobsOf(what any) (v1.Descriptor, error) {
	m := what.(manifest)
	raw, err := m.RawManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := m.Digest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	out := v1.Descriptor{Digest: d, Size: int64(len(raw))}
	if err := e.add("blobs/sha256/"+d.Hex, raw); err != nil {
		return out, err
	}
	if index, ok := what.(v1.ImageIndex); ok {
		if out.MediaType, err = index.MediaType(); err != nil {
			return out, err
		}
		list, err := index.IndexManifest()
		if err != nil {
			return out, err
		}
		for _, child := range list.Manifests {
			img, err := index.Image(child.Digest)
			if err != nil {
				return out, err
			}
			if _, err := e.blobsOf(img); err != nil {
				return out, err
			}
		}
		return out, nil
	}
	img := what.(v1.Image)
	if out.MediaType, err = img.MediaType(); err != nil {
		return out, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return out, err
	}
	id, err := img.ConfigName()
	if err != nil {
		return out, err
	}
	if err := e.add("blobs/sha256/"+id.Hex, config); err != nil {
		return out, err
	}
	layers, err := img.Layers()
	if err != nil {
		return out, err
	}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return out, err
		}
		content, err := readAll(l.Compressed)
		if err != nil {
			return out, err
		}
		if err := e.add("blobs/sha256/"+d.Hex, content); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Gzip compresses bytes.
func Gzip(plain []byte) ([]byte, error) {
	var packed bytes.Buffer
	zw, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := zw.Write(plain); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// WriteFile writes an archive to a file, compressed if it is to be.
func WriteFile(path string, compress bool, save func(io.Writer) error) error {
	var b bytes.Buffer
	if err := save(&b); err != nil {
		return err
	}
	content := b.Bytes()
	if compress {
		var err error
		if content, err = Gzip(content); err != nil {
			return err
		}
	}
	return os.WriteFile(path, content, 0o600)
}
