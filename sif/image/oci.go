package image

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"
)

const (
	maxLayers    = 256
	maxManifests = 64
)

var sha256Digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// tarLayers are the layers that every runtime reads as they are.
var tarLayers = map[string]string{ // in the file: in the result
	typeLayer:           typeLayer,
	typeLayer + "+gzip": typeLayer + "+gzip",
	typeLayer + "+zstd": typeLayer + "+zstd",
	"application/vnd.docker.image.rootfs.diff.tar.gzip": typeLayer + "+gzip",
}

// openOCI reads index, manifest and configuration of an OCI-SIF.
func (i *Image) openOCI(root apptainer.Descriptor) error {
	b, err := readObject(root, maxJSON)
	if err != nil {
		return err
	}
	i.use(root)
	var idx index
	if err := unmarshal(b, &idx, "the OCI index"); err != nil {
		return err
	}
	blobs := i.blobs()
	m, err := i.chooseManifest(blobs, idx.Manifests)
	if err != nil {
		return err
	}
	cfg, err := i.readConfig(blobs, m.Config)
	if err != nil {
		return err
	}
	switch {
	case len(m.Layers) == 0:
		return fmt.Errorf("%w: its OCI manifest has no layers", ErrNoSystem)
	case len(m.Layers) > maxLayers:
		return tooMuch("it has %d layers, %d are allowed", len(m.Layers), maxLayers)
	}
	for n, l := range m.Layers {
		if err := i.addLayer(blobs, l, n, cfg.RootFS.DiffIDs, len(m.Layers)); err != nil {
			return err
		}
	}
	i.Config, i.Variant = cfg.Config, cfg.Variant
	if t, err := time.Parse(time.RFC3339, cfg.Created); err == nil {
		i.Created = clamp(t)
	}
	return nil
}

// chooseManifest takes the manifest for this machine.
func (i *Image) chooseManifest(blobs map[string]apptainer.Descriptor, list []descriptor) (manifest, error) {
	if len(list) > maxManifests {
		return manifest{}, tooMuch("its index names %d manifests, %d are allowed", len(list), maxManifests)
	}
	var found *manifest
	var others []string
	for _, d := range list {
		if p := d.Platform; p != nil && (p.Architecture != i.opts.Architecture || p.OS != "linux") {
			others = append(others, p.OS+"/"+p.Architecture)
			continue
		}
		if found != nil {
			return manifest{}, fmt.Errorf("%w: its index names several images for this machine", ErrSeveralSystems)
		}
		b, err := i.readBlob(blobs, d)
		if err != nil {
			return manifest{}, err
		}
		found = &manifest{}
		if err := unmarshal(b, found, "the OCI manifest"); err != nil {
			return manifest{}, err
		}
	}
	switch {
	case found != nil:
		return *found, nil
	case len(others) > 0:
		return manifest{}, fmt.Errorf("%w: it is for %s and this machine is linux/%s", ErrArchitecture, printable(strings.Join(others, ", ")), i.opts.Architecture)
	}
	return manifest{}, fmt.Errorf("%w: its OCI index is empty", ErrNoSystem)
}

func (i *Image) readConfig(blobs map[string]apptainer.Descriptor, d descriptor) (imageConfig, error) {
	b, err := i.readBlob(blobs, d)
	if err != nil {
		return imageConfig{}, err
	}
	var cfg imageConfig
	if err := unmarshal(b, &cfg, "the OCI configuration"); err != nil {
		return imageConfig{}, err
	}
	if cfg.OS != "linux" {
		return imageConfig{}, fmt.Errorf("%w: it is for the operating system %s", ErrArchitecture, printable(cfg.OS))
	}
	return cfg, i.wantArchitecture(cfg.Architecture)
}

func (i *Image) addLayer(blobs map[string]apptainer.Descriptor, l descriptor, n int, diffIDs []string, layers int) error {
	d, err := i.blob(blobs, l)
	if err != nil {
		return err
	}
	s := layerSource{off: d.Offset(), size: d.Size(), digest: l.Digest}
	switch {
	case l.MediaType == typeSquashfs:
		s.squashfs = true
	case tarLayers[l.MediaType] != "":
		if len(diffIDs) != layers || !sha256Digest.MatchString(diffIDs[n]) {
			return corrupt("its OCI configuration does not have one digest for each of its %d layers", layers)
		}
		s.mediaType, s.diffID = tarLayers[l.MediaType], diffIDs[n]
	case strings.Contains(l.MediaType, "ext3"):
		return fmt.Errorf("%w: layer %d is a writable overlay; seal it, or build the image without it", ErrExt3, n+1)
	default:
		return fmt.Errorf("%w: layer %d is of the type %s", ErrFileSystem, n+1, printable(l.MediaType))
	}
	i.layers = append(i.layers, s)
	return nil
}

// blobs finds the OCI blobs in the file. Of several with one digest the first counts:
// its digest is checked when it is read.
func (i *Image) blobs() map[string]apptainer.Descriptor {
	out := map[string]apptainer.Descriptor{}
	for _, d := range i.descriptors() {
		if d.DataType() != apptainer.DataOCIBlob {
			continue
		}
		h, err := d.OCIBlobDigest()
		if err != nil {
			continue // named by nothing that is read
		}
		if _, ok := out[h.String()]; !ok {
			out[h.String()] = d
		}
	}
	return out
}

func (i *Image) blob(blobs map[string]apptainer.Descriptor, want descriptor) (apptainer.Descriptor, error) {
	if !sha256Digest.MatchString(want.Digest) {
		return apptainer.Descriptor{}, corrupt("%s is no SHA-256 digest", printable(want.Digest))
	}
	d, ok := blobs[want.Digest]
	if !ok {
		return apptainer.Descriptor{}, corrupt("blob %s is missing", want.Digest)
	}
	if d.Size() != want.Size {
		return apptainer.Descriptor{}, corrupt("blob %s has %d bytes instead of %d", want.Digest, d.Size(), want.Size)
	}
	if !slices.Contains(i.used, d.ID()) {
		i.use(d)
	}
	return d, nil
}

// readBlob reads a blob into memory and checks its digest.
func (i *Image) readBlob(blobs map[string]apptainer.Descriptor, want descriptor) ([]byte, error) {
	d, err := i.blob(blobs, want)
	if err != nil {
		return nil, err
	}
	b, err := readObject(d, maxJSON)
	if err != nil {
		return nil, err
	}
	if digestOf(b) != want.Digest {
		return nil, corrupt("the content of blob %s is another", want.Digest)
	}
	return b, nil
}
