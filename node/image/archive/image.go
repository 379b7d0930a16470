package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"
)

// Image is one image of an archive, for this machine.
type Image struct {
	// Names are how the archive calls it, as they are written. A name may be a tag
	// alone, which is none for a task.
	Names []string
	// Digest is what the archive keeps of where the image comes from: that of the
	// index, or of the manifest. "" of docker save, which keeps none: see Seal.
	Digest string
	// Documents are the index, if there is one, the manifest and the configuration, the
	// manifest not before Seal where Digest is "".
	Documents []Document
	// Manifest and Config are digests of documents.
	Manifest, Config string
	OS, Architecture string
	// Layers, the lowest first.
	Layers []Layer
}

// Document is a small part of an image.
type Document struct {
	MediaType string
	Digest    string
	Content   []byte
}

// Layer is one layer of an image.
type Layer struct {
	MediaType string // "" where the archive does not tell
	Digest    string // "" where the archive does not tell
	DiffID    string // digest of the unpacked layer, from the configuration
	Size      int64  // in the archive

	file file
}

func document(mediaType string, content []byte) Document {
	sum := sha256.Sum256(content)
	return Document{mediaType, "sha256:" + hex.EncodeToString(sum[:]), content}
}

// Media types of Docker's, which mean the same as OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// layerTypes are those that runtimes unpack.
var layerTypes = []string{
	v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd,
	dockerLayer, dockerLayer + ".gzip", dockerLayer + ".zstd",
}

// errNoImage: a manifest is of something else than a container image, a signature for one.
var errNoImage = errors.New("not a container image")

// errOther: it is for another machine.
type errOther struct{ platform string }

func (e errOther) Error() string { return "it is made for " + e.platform }

// readLayout finds the images of an OCI layout.
func (a *Archive) readLayout() error {
	var version v1.ImageLayout
	text, err := a.document("oci-layout")
	if err == nil {
		err = decode("oci-layout", text, &version)
	}
	if err == nil && !strings.HasPrefix(version.Version, "1.") {
		err = malformed("its OCI layout has the version %q, and not 1.0.0", version.Version)
	}
	if err != nil {
		return err
	}
	index, err := a.index("index.json", nil)
	if err != nil {
		return err
	}
	var others []string
	byDigest := map[digest.Digest]*Image{}
	for _, d := range index.Manifests {
		img := byDigest[d.Digest]
		if img == nil {
			img = &Image{Digest: d.Digest.String()}
			var other errOther
			err := a.pick(img, d, 0)
			switch {
			case errors.Is(err, errNoImage):
				if err := a.readSignatures(d); err != nil {
					return err
				}
				continue
			case errors.As(err, &other):
				others = append(others, other.platform)
				continue
			case err != nil:
				return err
			}
			if len(a.Images) >= maxImages {
				return fmt.Errorf("%w: it has more than %d images", ErrLimit, maxImages)
			}
			byDigest[d.Digest] = img
			a.Images = append(a.Images, img)
		}
		// The first is containerd's and docker's whole name; of the second only the
		// tag is sure.
		name := d.Annotations["io.containerd.image.name"]
		if name == "" {
			name = d.Annotations[v1.AnnotationRefName]
		}
		if err := img.addName(name); err != nil {
			return err
		}
	}
	switch {
	case len(a.Images) > 0:
		return a.readBundles()
	case len(others) > 0:
		slices.Sort(others)
		return fmt.Errorf("%w: it is made for %v, this machine is %s/%s", ErrPlatform, slices.Compact(others), a.o.OS, a.o.Architecture)
	}
	return malformed("its OCI layout has no container image")
}

func (i *Image) addName(name string) error {
	if name == "" || slices.Contains(i.Names, name) {
		return nil
	}
	if len(i.Names) >= maxNames {
		return fmt.Errorf("%w: an image in it has more than %d names", ErrLimit, maxNames)
	}
	i.Names = append(i.Names, name)
	return nil
}

// index reads an index, from an entry or from text.
func (a *Archive) index(name string, text []byte) (*v1.Index, error) {
	var err error
	if text == nil {
		if text, err = a.document(name); err != nil {
			return nil, err
		}
	}
	var index v1.Index
	if err := decode(name, text, &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) > maxIndex {
		return nil, fmt.Errorf("%w: %s has more than %d entries", ErrLimit, name, maxIndex)
	}
	return &index, nil
}

// blob is where the content of a descriptor is.
func (a *Archive) blob(d v1.Descriptor) (file, error) {
	if !isDigest(d.Digest) {
		return file{}, malformed("its digest %q is not SHA-256", short(string(d.Digest)))
	}
	f, err := a.find("blobs/sha256/" + d.Digest.Encoded())
	if err == nil && f.size != d.Size {
		err = malformed("its part %s has %d bytes, not %d", d.Digest, f.size, d.Size)
	}
	return f, err
}

func isDigest(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

func short(s string) string { return s[:min(len(s), 100)] }

// read reads and verifies the document of a descriptor.
func (a *Archive) read(d v1.Descriptor) (Document, error) {
	f, err := a.blob(d)
	if err != nil {
		return Document{}, err
	}
	content, err := a.document("blobs/sha256/" + d.Digest.Encoded())
	if err != nil {
		return Document{}, err
	}
	doc := document(d.MediaType, content)
	if int64(len(content)) != f.size || doc.Digest != d.Digest.String() {
		return Document{}, malformed("its part %s has other content than this digest says", d.Digest)
	}
	return doc, nil
}

// pick reads the image that a descriptor stands for: of an index that for this machine.
func (a *Archive) pick(img *Image, d v1.Descriptor, depth int) error {
	if depth >= maxDepth {
		return malformed("it has an index in an index, more than %d deep", maxDepth)
	}
	if p := d.Platform; p != nil {
		if p.OS == "unknown" { // statements about an image
			return errNoImage
		}
		if p.OS != a.o.OS || p.Architecture != a.o.Architecture {
			return errOther{short(p.OS + "/" + p.Architecture)}
		}
	}
	doc, err := a.read(d)
	if err != nil {
		return err
	}
	switch d.MediaType {
	case v1.MediaTypeImageManifest, dockerManifest:
		return a.manifest(img, doc)
	case v1.MediaTypeImageIndex, dockerIndex:
	default:
		return errNoImage
	}
	index, err := a.index(doc.Digest, doc.Content)
	if err != nil {
		return err
	}
	failed := errNoImage
	for _, child := range index.Manifests {
		var other errOther
		part := &Image{}
		err := a.pick(part, child, depth+1)
		switch {
		case err == nil:
			img.Documents = append([]Document{doc}, part.Documents...)
			img.Manifest, img.Config, img.OS, img.Architecture, img.Layers = part.Manifest, part.Config, part.OS, part.Architecture, part.Layers
			return nil
		case errors.As(err, &other):
			failed = err
		case !errors.Is(err, errNoImage):
			return err
		}
	}
	return failed
}

// manifest reads an image's manifest and configuration.
func (a *Archive) manifest(img *Image, doc Document) error {
	var m v1.Manifest
	if err := decode(doc.Digest, doc.Content, &m); err != nil {
		return err
	}
	if m.Config.MediaType != v1.MediaTypeImageConfig && m.Config.MediaType != dockerConfig || m.ArtifactType != "" {
		return errNoImage
	}
	if len(m.Layers) > maxLayers {
		return fmt.Errorf("%w: an image in it has more than %d layers", ErrLimit, maxLayers)
	}
	for _, l := range m.Layers {
		if !slices.Contains(layerTypes, l.MediaType) {
			return errNoImage
		}
	}
	config, err := a.read(m.Config)
	if err != nil {
		return err
	}
	img.Documents, img.Manifest = append(img.Documents, doc), doc.Digest
	diffs, err := a.config(img, config, len(m.Layers))
	if err != nil {
		return err
	}
	for n, l := range m.Layers {
		f, err := a.blob(l)
		if err != nil {
			return err
		}
		img.Layers = append(img.Layers, Layer{MediaType: l.MediaType, Digest: l.Digest.String(), DiffID: diffs[n], Size: f.size, file: f})
	}
	return nil
}

// config reads an image's configuration, and returns the digests of its unpacked layers.
func (a *Archive) config(img *Image, doc Document, layers int) ([]string, error) {
	var c v1.Image
	if err := decode("the configuration of an image", doc.Content, &c); err != nil {
		return nil, err
	}
	if c.OS != "" && c.OS != a.o.OS || c.Architecture != "" && c.Architecture != a.o.Architecture {
		return nil, errOther{short(c.OS + "/" + c.Architecture)}
	}
	if len(c.RootFS.DiffIDs) != layers {
		return nil, malformed("an image in it has %d layers and the digests of %d", layers, len(c.RootFS.DiffIDs))
	}
	var out []string
	for _, d := range c.RootFS.DiffIDs {
		if !isDigest(d) {
			return nil, malformed("the digest %q of an unpacked layer is not SHA-256", short(string(d)))
		}
		out = append(out, d.String())
	}
	img.Documents, img.Config, img.OS, img.Architecture = append(img.Documents, doc), doc.Digest, a.o.OS, a.o.Architecture
	return out, nil
}

// readDocker finds the images that docker save has written.
func (a *Archive) readDocker() error {
	text, err := a.document("manifest.json")
	if err != nil {
		return err
	}
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := decode("manifest.json", text, &list); err != nil {
		return err
	}
	if len(list) > maxImages {
		return fmt.Errorf("%w: it has more than %d images", ErrLimit, maxImages)
	}
	var others []string
	for _, item := range list {
		if len(item.Layers) > maxLayers {
			return fmt.Errorf("%w: an image in it has more than %d layers", ErrLimit, maxLayers)
		}
		config, err := a.document(item.Config)
		if err != nil {
			return err
		}
		img := &Image{}
		var other errOther
		diffs, err := a.config(img, document(v1.MediaTypeImageConfig, config), len(item.Layers))
		if errors.As(err, &other) {
			others = append(others, other.platform)
			continue
		}
		if err != nil {
			return err
		}
		for n, name := range item.Layers {
			f, err := a.find(name)
			if err != nil {
				return err
			}
			img.Layers = append(img.Layers, Layer{DiffID: diffs[n], Size: f.size, file: f})
		}
		for _, name := range item.RepoTags {
			if err := img.addName(name); err != nil {
				return err
			}
		}
		a.Images = append(a.Images, img)
	}
	if len(a.Images) == 0 && len(others) > 0 {
		return fmt.Errorf("%w: it is made for %v, this machine is %s/%s", ErrPlatform, others, a.o.OS, a.o.Architecture)
	}
	if len(a.Images) == 0 {
		return malformed("it has no image")
	}
	return nil
}

// Seal gives an image of docker save a manifest, once all of its layers were read.
// The same file gives the same digest everywhere.
func (i *Image) Seal() error {
	if i.Digest != "" {
		return nil
	}
	config := i.Documents[0]
	m := v1.Manifest{
		Versioned: ocispec.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: config.MediaType, Digest: digest.Digest(config.Digest), Size: int64(len(config.Content))},
		Layers: []v1.Descriptor{},
	}
	for _, l := range i.Layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: l.MediaType, Digest: digest.Digest(l.Digest), Size: l.Size})
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	doc := document(v1.MediaTypeImageManifest, text)
	i.Documents = append([]Document{doc}, i.Documents...)
	i.Manifest, i.Digest = doc.Digest, doc.Digest
	return nil
}
