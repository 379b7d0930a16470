package imagekit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// SigningKey makes a key as `cosign generate-key-pair` does, and its public half in PEM.
func SigningKey() (key *ecdsa.PrivateKey, public []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("write a public key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// Sign makes what `cosign sign --key` of cosign 1 and 2 puts beside an image with that digest: an
// image that holds the signature. Its tag is the digest, - for :, and .sig.
func Sign(key *ecdsa.PrivateKey, digest string) (signature v1.Image, err error) {
	const kind = types.MediaType("application/vnd.dev.cosign.simplesigning.v1+json")
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	sum := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", digest, err)
	}
	return mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer: static.NewLayer(payload, kind), MediaType: kind,
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)},
	})
}

// SignPredicate is what `cosign sign` says of an image.
const SignPredicate = "https://sigstore.dev/cosign/sign/v1"

const bundleType = types.MediaType("application/vnd.dev.sigstore.bundle.v0.3+json")

// Bundle makes the bundle in which cosign 3 says something, the predicate, of a digest.
func Bundle(key *ecdsa.PrivateKey, digest, predicate string) ([]byte, error) {
	const kind = "application/vnd.in-toto+json"
	payload := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		strings.TrimPrefix(digest, "sha256:"), predicate)
	sum := sha256.Sum256(dsse.PAE(kind, payload))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", digest, err)
	}
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"a hint"}},"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
		bundleType, base64.StdEncoding.EncodeToString(payload), kind, base64.StdEncoding.EncodeToString(sig)), nil
}

// Referrer makes what cosign 3 puts beside an image: an artifact that refers to it and holds the bundle.
func Referrer(digest, predicate string, bundle []byte) (v1.Image, error) {
	subject, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
	if img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(bundle, bundleType), MediaType: bundleType}); err != nil {
		return nil, err
	}
	img = mutate.Annotations(img, map[string]string{"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicate}).(v1.Image)
	return mutate.Subject(img, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: subject}).(v1.Image), nil
}
