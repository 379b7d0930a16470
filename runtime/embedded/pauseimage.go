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
)

// pauseRepository is where the sandbox image seems to come from: a name that
// no registry serves.
const pauseRepository = "localhost/v6node/pause"

// maxPause bounds the pause program, a few megabytes at most.
const maxPause = 16 << 20

// Media types of the OCI image specification 1.1.
const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// blob is content with its digest.
type blob struct {
	mediaType string
	digest    string
	content   []byte
}

func newBlob(mediaType string, content []byte) blob {
	return blob{mediaType, fmt.Sprintf("sha256:%x", sha256.Sum256(content)), content}
}

// descriptor is how OCI documents refer to a blob.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

func (b blob) descriptor() descriptor {
	return descriptor{b.mediaType, b.digest, int64(len(b.content))}
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

// readPauseImage makes an image of the pause program at path.
func readPauseImage(path string) (*pauseImage, error) {
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
	return newPauseImage(program, runtime.GOARCH)
}

func newPauseImage(program []byte, arch string) (*pauseImage, error) {
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
	p := &pauseImage{layer: newBlob(layerType, tarball.Bytes())}

	type rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	type process struct {
		User       string   `json:"User"`
		Entrypoint []string `json:"Entrypoint"`
		WorkingDir string   `json:"WorkingDir"`
	}
	config, err := json.Marshal(struct {
		Architecture string  `json:"architecture"`
		OS           string  `json:"os"`
		Config       process `json:"config"`
		RootFS       rootFS  `json:"rootfs"`
	}{arch, "linux", process{"65535:65535", []string{"/pause"}, "/"}, rootFS{"layers", []string{p.layer.digest}}})
	if err != nil {
		return nil, err
	}
	p.config = newBlob(configType, config)

	manifest, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{2, manifestType, p.config.descriptor(), []descriptor{p.layer.descriptor()}})
	if err != nil {
		return nil, err
	}
	p.manifest = newBlob(manifestType, manifest)
	return p, nil
}
