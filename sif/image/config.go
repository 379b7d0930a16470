package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Media types of the OCI image specification, and that of OCI-SIF's layers.
const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
	typeSquashfs = "application/vnd.sylabs.image.layer.v1.squashfs"
)

// ManifestType is the media type of the manifests made here.
const ManifestType = typeManifest

// The types below are this package's own, not those of a library, so that no new
// release of one changes digests that policies name.

// Config is how a container of the image starts.
type Config struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

// imageConfig is the configuration object of an OCI image.
type imageConfig struct {
	Created      string `json:"created,omitempty"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
	OS           string `json:"os"`
	Config       Config `json:"config"`
	RootFS       rootFS `json:"rootfs"`
}

type rootFS struct {
	Type    string       `json:"type"`
	DiffIDs list[string] `json:"diff_ids"`
}

type manifest struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType,omitempty"`
	Config        descriptor       `json:"config"`
	Layers        list[descriptor] `json:"layers"`
}

type index struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType,omitempty"`
	Manifests     list[descriptor] `json:"manifests"`
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

// list is a JSON array that is read only up to a length: three bytes of text become a
// hundred in memory.
type list[T any] []T

const maxList = 1024

func (l *list[T]) UnmarshalJSON(b []byte) error {
	*l = nil
	if string(b) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errors.New("there should be a list"), err)
	}
	for dec.More() {
		if len(*l) == maxList {
			return fmt.Errorf("a list of more than %d", maxList)
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return err
		}
		*l = append(*l, v)
	}
	return nil // what follows is checked by who calls
}

// marshal writes JSON the same way always: no escapes for HTML, no line feed.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }
