package embedded

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pauseRepository is where the sandbox image seems to come from: a name that
// no registry serves.
const pauseRepository = "localhost/v6node/pause"

// maxPause bounds the pause program, a few megabytes at most.
const maxPause = 16 << 20

// blob is content with its digest.
type blob struct {
	mediaType string
	digest    string
	content   []byte
}

func newBlob(mediaType string, content []byte) blob {
	return blob{mediaType, fmt.Sprintf("sha256:%x", sha256.Sum256(content)), content}
}

func (b blob) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: b.mediaType, Digest: digest.Digest(b.digest), Size: int64(len(b.content))}
}

// pauseImage is the image of the sandboxes: one file. The same program always
// gives the same digests.
type pauseImage struct {
	layer, config, manifest blob
}

// ref is the image's name. It contains part of the digest, so that another
// pause program is another image.
func (p *pauseImage) ref() string {
	return pauseRepository + ":" + p.manifest.digest[len("sha256:"):][:16]
}

// pauseUser is the user of sandboxes' first processes: nobody else is this one.
const pauseUser = 65535

// readPauseImage makes an image of the pause program at path, which runs as user.
func readPauseImage(path string, user int) (*pauseImage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	program, err := io.ReadAll(io.LimitReader(f, maxPause+1))
	if err != nil {
		return nil, err
	}
	if len(program) > maxPause {
		return nil, fmt.Errorf("the pause program %s is larger than %d MiB: the bundle is damaged, build it again", path, maxPause>>20)
	}
	return newPauseImage(program, runtime.GOARCH, user)
}

func newPauseImage(program []byte, arch string, user int) (*pauseImage, error) {
	var tarball bytes.Buffer
	w := tar.NewWriter(&tarball)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "pause", Size: int64(len(program)), Mode: 0o555, Format: tar.FormatUSTAR})
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	p := &pauseImage{layer: newBlob(ocispec.MediaTypeImageLayer, tarball.Bytes())}
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{Architecture: arch, OS: "linux"},
		Config:   ocispec.ImageConfig{User: fmt.Sprintf("%[1]d:%[1]d", user), Entrypoint: []string{"/pause"}, WorkingDir: "/"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(p.layer.digest)}},
	})
	if err != nil {
		return nil, err
	}
	p.config = newBlob(ocispec.MediaTypeImageConfig, config)
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: p.config.descriptor(), Layers: []ocispec.Descriptor{p.layer.descriptor()},
	})
	if err != nil {
		return nil, err
	}
	p.manifest = newBlob(ocispec.MediaTypeImageManifest, manifest)
	return p, nil
}
