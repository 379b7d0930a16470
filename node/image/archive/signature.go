package archive

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Signature is one that cosign has made: `cosign save` puts it beside its image.
type Signature struct {
	// Payload is what cosign 1 and 2 have signed, Signature as they write it.
	Payload   []byte `json:"payload,omitempty"`
	Signature string `json:"signature,omitempty"`
	// Bundle is what cosign 3 writes instead.
	Bundle []byte `json:"bundle,omitempty"`
}

// What cosign writes, and bounds of it.
const (
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	maxSignatures       = 32
	maxPayload          = 64 << 10
	maxSignature        = 1 << 10
)

// MaxBundle is how many bytes a bundle may have; those of cosign have some thousand.
const MaxBundle = 128 << 10

// IsBundle tells whether a media type is that of sigstore's bundles which cosign 3 writes, in one of its two
// spellings (protobuf-specs, sigstore_bundle.proto).
func IsBundle(mediaType string) bool {
	return mediaType == "application/vnd.dev.sigstore.bundle.v0.3+json" || mediaType == "application/vnd.dev.sigstore.bundle+json;version=0.3"
}

// Bounds of the search for bundles.
const (
	maxReferrer  = 16 << 10 // bytes of the manifest that refers to an image
	maxReferrers = 2048     // small files that may be one
)

// readSignatures takes the signatures of a manifest that is no image's. More than are
// allowed are left out: those that are there may do.
func (a *Archive) readSignatures(d v1.Descriptor) error {
	if d.MediaType != v1.MediaTypeImageManifest && d.MediaType != dockerManifest || d.Size > maxDocument {
		return nil
	}
	doc, err := a.read(d)
	if err != nil {
		return err
	}
	var m v1.Manifest
	if err := decode(doc.Digest, doc.Content, &m); err != nil {
		return err
	}
	for _, l := range m.Layers {
		signature := l.Annotations[signatureAnnotation]
		if l.MediaType != payloadType || l.Size > maxPayload || len(signature) > maxSignature || len(a.Signatures) >= maxSignatures {
			continue
		}
		f, err := a.blob(l)
		if err != nil {
			return err
		}
		payload, err := io.ReadAll(a.open(f))
		if err != nil {
			return err
		}
		if document("", payload).Digest != l.Digest.String() {
			return malformed("its part %s has other content than this digest says", l.Digest)
		}
		a.Signatures = append(a.Signatures, Signature{Payload: payload, Signature: signature})
	}
	return nil
}

// readBundles takes the bundles of cosign 3, which refer to their image. `cosign save` names them in no index, so all
// small blobs are looked at. What is none, or damaged, is left out: it is no part of an image.
func (a *Archive) readBundles() error {
	looked := 0
	for _, name := range slices.Sorted(maps.Keys(a.files)) {
		f := a.files[name]
		if !strings.HasPrefix(name, "blobs/sha256/") || f.size > maxReferrer {
			continue
		}
		if looked++; looked > maxReferrers || len(a.Signatures) >= maxSignatures {
			break
		}
		text, err := io.ReadAll(a.open(f))
		if err != nil {
			return err
		}
		var m v1.Manifest
		if json.Unmarshal(text, &m) != nil || m.Subject == nil || len(m.Layers) != 1 || !IsBundle(m.Layers[0].MediaType) || m.Layers[0].Size > MaxBundle {
			continue
		}
		if f, err = a.blob(m.Layers[0]); err != nil {
			continue
		}
		if text, err = io.ReadAll(a.open(f)); err != nil {
			return err
		}
		if document("", text).Digest == m.Layers[0].Digest.String() {
			a.Signatures = append(a.Signatures, Signature{Bundle: text})
		}
	}
	return nil
}
