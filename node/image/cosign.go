package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/v6node/v6node/node/image/imageref"
)

// What cosign 1 and 2 write: at the tag sha256-DIGEST.sig of the image's repository an image with a layer for each signature.
const (
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	payloadKind         = "cosign container image signature"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// Bounds of what registries can make the node read.
const (
	maxSignatures = 32 // of each format
	maxPayload    = 64 << 10
	maxSigned     = 1 << 10 // a signature
)

// noSignature is what there is to say where nothing was found.
const noSignature = "there is no signature"

// Signatures is a Source that can tell whether an image is signed.
type Signatures interface {
	// Signed returns the name of the key that has signed an image that the same source has resolved. Errors are
	// *Error, of the kind ErrSignature where none has, or ctx's own.
	Signed(ctx context.Context, r Resolved, keys *SigningKeys) (signer string, err error)
}

// Signed implements Signatures.
func (s Schemes) Signed(ctx context.Context, r Resolved, keys *SigningKeys) (string, error) {
	of, err := s.of(r.Reference)
	if err != nil {
		return "", err
	}
	signed, ok := of.(Signatures)
	if !ok {
		return "", unsigned(r, "signatures of such images are not looked at")
	}
	return signed.Signed(ctx, r, keys)
}

func unsigned(r Resolved, format string, a ...any) error {
	why := fmt.Sprintf(format, a...)
	return &Error{Ref: r.Pinned, Kind: ErrSignature, Cause: errors.New(why), text: fmt.Sprintf(
		"the image %s has no signature that this node accepts: %s: sign this digest with a key that this node trusts, or ask the node's administrator", r.Pinned, why)}
}

// Signed implements Signatures.
func (r *Resolver) Signed(ctx context.Context, res Resolved, keys *SigningKeys) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	ref, err := imageref.Parse(res.Pinned)
	if err != nil || ref.Scheme != imageref.Container || ref.Digest != res.Digest {
		return "", &Error{Ref: short(res.Pinned), Kind: ErrInvalid, Cause: errors.New("it is not an image of a registry by its digest")}
	}
	// A mirror may lack the signature, or have an old one. What counts is that a key has made it.
	return ask(ctx, r.registries, ref.Domain, res.Pinned, func(p *place) bool { return p.Pull && p.Resolve }, func(p *place, puller *remote.Puller) (string, error) {
		return signedAt(ctx, p, puller, ref, res, keys)
	})
}

// signedAt looks for signatures of both formats at one place.
func signedAt(ctx context.Context, at *place, p *remote.Puller, ref imageref.Reference, res Resolved, keys *SigningKeys) (string, error) {
	repo, err := at.repository(ref.Path)
	if err != nil {
		return "", &Error{Ref: res.Pinned, Kind: ErrInvalid, Cause: err}
	}
	signer, tagged, err := signedByTag(ctx, p, repo, res.Digest, keys)
	if signer != "" || err != nil {
		return signer, err
	}
	signer, referring, err := signedByBundle(ctx, p, repo, res.Digest, keys)
	if signer != "" || err != nil {
		return signer, err
	}
	return "", unsigned(res, "at its registry, of cosign 1 and 2 (the tag sha256-DIGEST.sig): %s; of cosign 3 (a bundle that refers to the image): %s", tagged, referring)
}

// signedByTag looks for signatures as cosign 1 and 2 write them. Without a signer it says why there is none.
func signedByTag(ctx context.Context, p *remote.Puller, repo name.Repository, digest string, keys *SigningKeys) (signer, why string, err error) {
	desc, err := p.Get(ctx, repo.Tag(strings.Replace(digest, ":", "-", 1)+".sig"))
	if isMissing(err) {
		return "", noSignature, nil
	}
	if err != nil {
		return "", "", err
	}
	m, err := v1.ParseManifest(bytes.NewReader(desc.Manifest))
	if err != nil || !desc.MediaType.IsImage() {
		return "", "what is there is none", nil
	}
	why = noSignature
	for _, l := range m.Layers[:min(len(m.Layers), maxSignatures)] {
		if l.MediaType != payloadType || l.Size > maxPayload {
			continue
		}
		payload, err := readSigned(ctx, p, repo, l, maxPayload)
		if err != nil {
			return "", "", err
		}
		i, err := keys.verify(payload, l.Annotations[signatureAnnotation], digest)
		if err == nil {
			return keys.names[i], "", nil
		}
		why = err.Error()
	}
	return "", why, nil
}

// isMissing tells whether a registry says that it has no such thing.
func isMissing(err error) bool {
	var status *transport.Error
	return errors.As(err, &status) && status.StatusCode == http.StatusNotFound
}

// readSigned reads a blob as far as it may be long.
func readSigned(ctx context.Context, p *remote.Puller, repo name.Repository, d v1.Descriptor, most int64) (_ []byte, err error) {
	layer, err := p.Layer(ctx, repo.Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	blob, err := layer.Compressed() // as it is; it checks the digest
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	return io.ReadAll(io.LimitReader(blob, most+1))
}

// verify tells which key has signed a payload that is about the digest. Nothing of a payload is believed before a key
// has signed it.
func (k *SigningKeys) verify(payload []byte, signature, digest string) (int, error) {
	if len(signature) > maxSigned || len(payload) > maxPayload {
		return 0, errors.New("a signature is longer than any is")
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(sig) == 0 {
		return 0, errors.New("a signature cannot be read")
	}
	i, err := k.signer(payload, sig)
	if err != nil {
		return 0, err
	}
	return i, about(payload, digest)
}

// about tells whether a payload says something about a digest.
func about(payload []byte, digest string) error {
	var p struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil || p.Critical.Type != payloadKind {
		return errors.New("what was signed is not about an image")
	}
	if p.Critical.Image.Digest != digest {
		return fmt.Errorf("the signature is about another image, %s", short(p.Critical.Image.Digest))
	}
	return nil
}
