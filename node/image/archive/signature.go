package archive

import (
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Signature is one that cosign has made: `cosign save` puts it beside its image.
type Signature struct {
	Payload   []byte `json:"payload"`   // what was signed
	Signature string `json:"signature"` // as cosign writes it
}

// What cosign writes, and bounds of it.
const (
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	maxSignatures       = 32
	maxPayload          = 64 << 10
	maxSignature        = 1 << 10
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
		a.Signatures = append(a.Signatures, Signature{payload, signature})
	}
	return nil
}
