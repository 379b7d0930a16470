package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/v6node/v6node/node/image/archive"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/image/imported"
	"github.com/v6node/v6node/runtime"
	"github.com/v6node/v6node/sif"
	"github.com/v6node/v6node/sif/registry"
)

// importedNamespace is the first part of the names under which imported images are served to the runtime.
const importedNamespace = "imported"

// Imports is the source of container images that an administrator has imported, in front of the one that asks
// registries: what was imported is what its name means, and no registry is asked for it. The runtime pulls it from
// the registry on loopback that serves SIF images.
type Imports struct {
	Images *imported.Store
	Serve  *sif.Store // nil where nothing is provided
	Others Source
}

// Resolve implements Source.
func (i *Imports) Resolve(ctx context.Context, ref string) (Resolved, error) {
	parsed, err := parse(ref)
	if err != nil {
		return Resolved{}, err
	}
	rec, err := i.Images.Find(parsed)
	if errors.Is(err, imported.ErrNotFound) {
		return i.Others.Resolve(ctx, ref)
	}
	if err != nil {
		return Resolved{}, &Error{Ref: ref, Kind: ErrConversion, Cause: err, text: err.Error()}
	}
	r := Resolved{Reference: ref, Repository: parsed.Name(), Digest: rec.Digest, Local: true, imported: rec}
	if parsed.Digest != "" { // that of its part for this machine, perhaps
		r.Digest = parsed.Digest
	}
	r.Pinned = parsed.Pin(r.Digest)
	return r, nil
}

// Signed implements Signatures. A signature that was imported with its image is as good as one at a registry: what
// counts is that a key has made it.
func (i *Imports) Signed(ctx context.Context, r Resolved, keys *SigningKeys) (string, error) {
	rec := r.imported
	if ref, err := imageref.Parse(r.Pinned); rec == nil && err == nil {
		if rec, err = i.Images.Find(ref); err != nil && !errors.Is(err, imported.ErrNotFound) {
			return "", &Error{Ref: r.Reference, Kind: ErrConversion, Cause: err, text: err.Error()}
		}
	}
	if rec != nil {
		for _, s := range rec.Signatures {
			if n, err := keys.verifyImported(s, r.Digest); err == nil {
				return keys.names[n], nil
			}
		}
	}
	signed, ok := i.Others.(Signatures)
	if !ok {
		return "", unsigned(r, "signatures of such images are not looked at")
	}
	return signed.Signed(ctx, r, keys)
}

func (k *SigningKeys) verifyImported(s archive.Signature, digest string) (int, error) {
	if len(s.Bundle) > 0 {
		return k.verifyBundle(s.Bundle, digest)
	}
	return k.verify(s.Payload, s.Signature, digest)
}

// Provide implements Source.
func (i *Imports) Provide(ctx context.Context, r Resolved, o Provision) (_ *Provided, err error) {
	rec := r.imported
	if rec == nil {
		return i.Others.Provide(ctx, r, o)
	}
	// By its ID the runtime has the image whatever the port of the registry was when it was pulled.
	p := &Provided{Name: rec.Config.Digest}
	if err := o.Named(p.Name); err != nil {
		return nil, err
	}
	p.Image, err = o.Store.Image(ctx, p.Name)
	if err == nil {
		return p, nil
	}
	if !errors.Is(err, runtime.ErrImageNotFound) {
		return nil, fmt.Errorf("look for the image %s: %w", r.Pinned, err)
	}
	release, err := i.Images.Use(ctx)
	if err != nil {
		return nil, fmt.Errorf("use the imported image %s: %w", r.Pinned, err)
	}
	defer func() { err = errors.Join(err, release()) }()
	manifest, err := i.Images.ReadDocument(rec.Manifest)
	if err != nil {
		return nil, &Error{Ref: r.Reference, Kind: ErrChanged, Cause: err,
			text: fmt.Sprintf("the imported image %s was removed or damaged meanwhile (%v): send the task again, or import the image again", r.Pinned, err)}
	}
	served, err := i.Serve.Serve(importedNamespace, path.Base(r.Repository), importedImage{i.Images, rec, manifest})
	if err != nil {
		return nil, fmt.Errorf("serve the imported image %s: %w", r.Pinned, err)
	}
	defer served.Release()
	at, _, _ := strings.Cut(served.Reference, "/")
	auth := &runtime.Auth{Server: "http://" + at, Username: served.Username, Password: served.Password}
	if _, err := o.Store.PullImage(ctx, served.Reference, auth, pullOptions(o)); err != nil {
		return nil, fmt.Errorf("give the imported image %s to the runtime: %w", r.Pinned, err)
	}
	if p.Image, err = o.Store.Image(ctx, p.Name); err != nil {
		return nil, fmt.Errorf("look for the imported image %s: %w", r.Pinned, err)
	}
	p.Fetched = true
	return p, nil
}

// importedImage is an imported image as the registry on loopback wants it.
type importedImage struct {
	store    *imported.Store
	rec      *imported.Record
	manifest []byte
}

func (i importedImage) Manifest() (content []byte, mediaType, digest string) {
	return i.manifest, i.rec.Manifest.MediaType, i.rec.Manifest.Digest
}

func (i importedImage) BlobSize(digest string) int64 {
	if digest == i.rec.Config.Digest {
		return i.rec.Config.Size
	}
	for _, l := range i.rec.Layers {
		if l.Digest == digest {
			return l.Size
		}
	}
	return -1
}

func (i importedImage) Blob(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	if i.BlobSize(digest) < 0 {
		return nil, registry.ErrUnknown
	}
	return i.store.OpenBlob(digest)
}

// ImportName reads the name under which a container image is imported: of a name without a tag :latest is meant.
func ImportName(text string) (imageref.Reference, error) {
	ref, err := imageref.Parse(text)
	if err != nil {
		return ref, err
	}
	if ref.Scheme != imageref.Container {
		return ref, fmt.Errorf("%w %q: this file holds a container image, whose name is that of one in a registry, such as registry.example.org/group/algo:1.0", imageref.ErrInvalid, text)
	}
	return ref, nil
}
