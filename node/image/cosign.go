package image

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/v6node/v6node/node/image/imageref"
)

// What cosign writes: at the tag sha256-DIGEST.sig of the image's repository an image with a layer for each signature.
const (
	payloadType         = "application/vnd.dev.cosign.simplesigning.v1+json"
	payloadKind         = "cosign container image signature"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// Bounds of what registries can make the node read.
const (
	maxSignatures  = 32
	maxPayload     = 64 << 10
	maxSigned      = 1 << 10 // a signature
	maxSigningKey  = 16 << 10
	maxSigningKeys = 64
)

// SigningKeys are the public keys of those whose word on an image counts.
type SigningKeys struct {
	names []string
	keys  []*ecdsa.PublicKey
}

// Signatures is a Source that can tell whether an image is signed.
type Signatures interface {
	// Signed returns the name of the key that has signed an image that the same source has resolved. Errors are
	// *Error, of the kind ErrSignature where none has, or ctx's own.
	Signed(ctx context.Context, r Resolved, keys *SigningKeys) (signer string, err error)
}

// LoadSigningKeys reads public keys in PEM, as `cosign generate-key-pair` writes them. A key is called as its file.
func LoadSigningKeys(files []string) (*SigningKeys, error) {
	if len(files) > maxSigningKeys {
		return nil, fmt.Errorf("there are %d keys, more than %d", len(files), maxSigningKeys)
	}
	k := &SigningKeys{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("a public key of policies.signatures.keys cannot be read: %w", err)
		}
		key, err := parseSigningKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s, of policies.signatures.keys, %w", file, err)
		}
		k.names, k.keys = append(k.names, filepath.Base(file)), append(k.keys, key)
	}
	return k, nil
}

func parseSigningKey(text []byte) (*ecdsa.PublicKey, error) {
	if len(text) > maxSigningKey {
		return nil, errors.New("is too long for a public key")
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("does not hold one public key in PEM, as cosign.pub does")
	}
	any, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("holds a public key that is damaged or of an unknown kind")
	}
	key, ok := any.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("holds a key that is not an ECDSA one, as cosign makes them")
	}
	return key, nil
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

func signedAt(ctx context.Context, at *place, p *remote.Puller, ref imageref.Reference, res Resolved, keys *SigningKeys) (string, error) {
	repo, err := at.repository(ref.Path)
	if err != nil {
		return "", &Error{Ref: res.Pinned, Kind: ErrInvalid, Cause: err}
	}
	desc, err := p.Get(ctx, repo.Tag(strings.Replace(res.Digest, ":", "-", 1)+".sig"))
	var status *transport.Error
	if errors.As(err, &status) && status.StatusCode == http.StatusNotFound {
		return "", unsigned(res, "there is no signature at its registry")
	}
	if err != nil {
		return "", err
	}
	m, err := v1.ParseManifest(bytes.NewReader(desc.Manifest))
	if err != nil || !desc.MediaType.IsImage() {
		return "", unsigned(res, "what its registry has in the place of signatures is none")
	}
	why := "there is no signature at its registry"
	for _, l := range m.Layers[:min(len(m.Layers), maxSignatures)] {
		if l.MediaType != payloadType || l.Size > maxPayload {
			continue
		}
		payload, err := readPayload(ctx, p, repo, l)
		if err != nil {
			return "", err
		}
		i, err := keys.verify(payload, l.Annotations[signatureAnnotation], res.Digest)
		if err == nil {
			return keys.names[i], nil
		}
		why = err.Error()
	}
	return "", unsigned(res, "%s", why)
}

func readPayload(ctx context.Context, p *remote.Puller, repo name.Repository, d v1.Descriptor) (_ []byte, err error) {
	layer, err := p.Layer(ctx, repo.Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	blob, err := layer.Compressed() // as it is; it checks the digest
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	return io.ReadAll(io.LimitReader(blob, maxPayload+1))
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
	sum := sha256.Sum256(payload)
	for i, key := range k.keys {
		if ecdsa.VerifyASN1(key, sum[:], sig) {
			return i, about(payload, digest)
		}
	}
	return 0, errors.New("none of the keys that this node trusts has signed it")
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
