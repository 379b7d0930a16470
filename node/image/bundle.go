package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/v6node/v6node/node/image/archive"
	"github.com/v6node/v6node/node/image/imageref"
)

// What cosign 3 writes: an artifact that refers to the image (OCI image-spec 1.1, "subject") and has one layer, a
// bundle of sigstore's (protobuf-specs, sigstore_bundle.proto). `cosign sign` puts a statement of in-toto into it, in a DSSE
// envelope, that says of its subject, the image's digest, nothing but that it was signed. `cosign attest` writes the same with
// other predicates: these are no signatures.
const (
	statementPayload    = "application/vnd.in-toto+json"
	statementType       = "https://in-toto.io/Statement/v1"
	signPredicate       = "https://sigstore.dev/cosign/sign/v1"
	predicateAnnotation = "dev.sigstore.bundle.predicateType"
	emptyConfig         = "application/vnd.oci.empty.v1+json"
)

// maxNesting is how deep the JSON of bundles and statements may be.
const maxNesting = 32

// signedByBundle looks for signatures as cosign 3 writes them. Without a signer it says why there is none.
func signedByBundle(ctx context.Context, p *remote.Puller, repo name.Repository, digest string, keys *SigningKeys) (signer, why string, err error) {
	list, why, err := referrers(ctx, p, repo, digest)
	for _, d := range list[:min(len(list), maxSignatures)] {
		text, err := readBundle(ctx, p, repo, d)
		if isMissing(err) {
			why = "what is listed as one is not there"
			continue
		}
		if err != nil {
			return "", "", err
		}
		if text == nil {
			continue
		}
		i, err := keys.verifyBundle(text, digest)
		if err == nil {
			return keys.names[i], "", nil
		}
		why = err.Error()
	}
	if len(list) > maxSignatures {
		why += fmt.Sprintf(", among the first %d of %d referrers", maxSignatures, len(list))
	}
	return "", why, err
}

// referrers lists what may be a signature of an image, the likeliest first, from the registry's list or, where it
// keeps none, from the tag sha256-DIGEST (OCI distribution-spec 1.1, "Referrers Tag Schema").
func referrers(ctx context.Context, p *remote.Puller, repo name.Repository, digest string) (found []v1.Descriptor, why string, err error) {
	index, err := remote.Referrers(repo.Digest(digest), remote.WithContext(ctx), remote.Reuse(p))
	var status *transport.Error
	if errors.As(err, &status) && (status.StatusCode == http.StatusMethodNotAllowed || status.StatusCode == http.StatusNotImplemented) {
		return nil, noSignature, nil // cosign could not have written any there
	}
	if err != nil {
		return nil, "", err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, "the list of what refers to it cannot be read", nil
	}
	for _, d := range m.Manifests {
		if likely(d) > 0 {
			found = append(found, d)
		}
	}
	slices.SortStableFunc(found, func(a, b v1.Descriptor) int { return cmp.Compare(likely(b), likely(a)) })
	return found, noSignature, nil
}

// likely tells how likely a referrer is a signature by what the list says of it; 0 is one that says that it is
// something else. Not all registries tell the type of the artifact and its annotations.
func likely(d v1.Descriptor) int {
	predicate := d.Annotations[predicateAnnotation]
	switch {
	case !d.MediaType.IsImage() || !imageref.IsDigest(d.Digest.String()) || predicate != "" && predicate != signPredicate:
		return 0
	case predicate != "":
		return 3
	case archive.IsBundle(d.ArtifactType):
		return 2
	case d.ArtifactType == "" || d.ArtifactType == emptyConfig:
		return 1
	}
	return 0
}

// readBundle reads the bundle of a referrer, nil if it has none.
func readBundle(ctx context.Context, p *remote.Puller, repo name.Repository, d v1.Descriptor) ([]byte, error) {
	desc, err := p.Get(ctx, repo.Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(desc.Manifest))
	if err != nil || len(m.Layers) != 1 || !archive.IsBundle(string(m.Layers[0].MediaType)) || m.Layers[0].Size > archive.MaxBundle {
		return nil, nil
	}
	return readSigned(ctx, p, repo, m.Layers[0], archive.MaxBundle)
}

// verifyBundle tells which key has signed the statement of a bundle, and that this is a signature of the digest. What a
// bundle says of keys, certificates and logs is not looked at: what counts is that one of these keys has made it.
func (k *SigningKeys) verifyBundle(text []byte, digest string) (int, error) {
	if len(text) > archive.MaxBundle {
		return 0, errors.New("a bundle is longer than any is")
	}
	var b bundle.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting}).Unmarshal(text, &b); err != nil {
		return 0, errors.New("a bundle cannot be read")
	}
	e := b.GetDsseEnvelope()
	switch {
	case !archive.IsBundle(b.GetMediaType()):
		return 0, fmt.Errorf("a bundle has the format %q, and not that of cosign 3", short(b.GetMediaType()))
	case e == nil || e.GetPayloadType() != statementPayload:
		return 0, errors.New("a bundle has no statement")
	case len(e.GetSignatures()) != 1: // as sigstore_bundle.proto wants it
		return 0, fmt.Errorf("a bundle has %d signatures instead of one", len(e.GetSignatures()))
	case len(e.GetSignatures()[0].GetSig()) > maxSigned:
		return 0, errors.New("a signature is longer than any is")
	}
	i, err := k.signer(dsse.PAE(e.GetPayloadType(), e.GetPayload()), e.GetSignatures()[0].GetSig())
	if err != nil {
		return 0, err
	}
	return i, states(e.GetPayload(), digest)
}

// states tells whether a statement is a signature of a digest.
func states(payload []byte, digest string) error {
	var s structpb.Struct
	if err := (protojson.UnmarshalOptions{RecursionLimit: maxNesting}).Unmarshal(payload, &s); err != nil {
		return errors.New("what was signed is not a statement")
	}
	f := s.GetFields()
	if t := f["predicateType"].GetStringValue(); t != signPredicate {
		return fmt.Errorf("what was signed says something else of the image (%q) than that it is signed", short(t))
	}
	if t := f["_type"].GetStringValue(); t != statementType {
		return fmt.Errorf("what was signed is not a statement of in-toto, version 1, but %q", short(t))
	}
	other := "none"
	for _, subject := range f["subject"].GetListValue().GetValues() {
		about := "sha256:" + subject.GetStructValue().GetFields()["digest"].GetStructValue().GetFields()["sha256"].GetStringValue()
		if about == digest {
			return nil
		}
		if imageref.IsDigest(about) {
			other = about
		}
	}
	return fmt.Errorf("the signature is about another image, %s", other)
}
