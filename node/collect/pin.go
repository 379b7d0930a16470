package collect

import (
	"fmt"
	"strings"

	"github.com/v6node/v6node/node/image/imageref"
)

// Pin names images that are never collected: by a digest, by a reference, or by
// a repository, whose tags and digests then all count.
type Pin struct {
	text   string
	digest string // where the pin is nothing else
	ref    imageref.Reference
}

// ParsePin reads a pin: sha256:..., or a reference as tasks have it.
func ParsePin(text string) (Pin, error) {
	if imageref.IsDigest(text) {
		return Pin{text: text, digest: text}, nil
	}
	if strings.HasPrefix(text, "sha256:") {
		return Pin{}, fmt.Errorf("%q is no digest: it wants 64 lower-case hexadecimal digits after sha256:", text)
	}
	ref, err := imageref.Parse(text)
	if err != nil {
		return Pin{}, fmt.Errorf("%w; write a reference or a digest, such as ghcr.io/org/algo:v1 or sha256:...", err)
	}
	return Pin{text: text, digest: ref.Digest, ref: ref}, nil
}

// String is the pin as it was written.
func (p Pin) String() string { return p.text }

// Holds tells whether the pin means an image of this name, which is a reference
// or a digest.
func (p Pin) Holds(name string) bool {
	if imageref.IsDigest(name) {
		return name == p.digest && p.ref.Path == ""
	}
	ref, err := imageref.Parse(name)
	if err != nil {
		return false
	}
	if p.ref.Path == "" {
		return ref.Digest == p.digest
	}
	switch {
	case ref.Name() != p.ref.Name():
		return false
	case p.digest != "":
		return ref.Digest == p.digest
	case p.ref.Tag != "":
		return ref.Digest == "" && ref.TagOrDefault() == p.ref.Tag
	}
	return true
}
