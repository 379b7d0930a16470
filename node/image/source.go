package image

import (
	"context"
	"fmt"
	"time"

	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/runtime"
)

// Source knows what references mean and brings the images into the runtime. Sources are safe for concurrent use.
type Source interface {
	// Resolve finds the digest that ref means now. It fetches and converts nothing. Errors are *Error with one of
	// the kinds, or ctx's own.
	Resolve(ctx context.Context, ref string) (Resolved, error)
	// Provide makes sure that the runtime holds an image that the same source has resolved. Calls for one image
	// share the work. Errors are *Error, those of the runtime, ctx's own, or that of Named.
	Provide(ctx context.Context, r Resolved, o Provision) (*Provided, error)
}

// Store is what providing images needs of a runtime's image store. runtime.Client implements it.
type Store interface {
	// Image returns an image that the store holds, or runtime.ErrImageNotFound.
	Image(ctx context.Context, ref string) (*runtime.Image, error)
	// PullImage fetches an image; calls for one reference share one pull.
	PullImage(ctx context.Context, ref string, auth *runtime.Auth, o runtime.PullOptions) (*runtime.Image, error)
}

// Provision is how an image is provided.
type Provision struct {
	Store Store // gets the image
	// Named is told what the runtime calls the image before the runtime is asked for it, so that the name can be
	// kept from collections. Its error ends the call.
	Named func(name string) error
	// Progress is told now and then how far a long call is. May be nil.
	Progress func(Progress)
	// Converted is told of a conversion that has ended, with the size of the SIF file. May be nil.
	Converted func(bytes int64, took time.Duration, err error)
}

// Progress is what is being done for an image, and how far it is. Total is 0 where it is not known.
type Progress struct {
	Doing       string // "downloading", "converting"
	Done, Total int64  // bytes
}

// Provided is an image that the runtime holds.
type Provided struct {
	// Name is what the runtime calls it: containers are created from it.
	Name  string
	Image *runtime.Image
	// Fetched tells that the runtime did not have it, or was made to ask its registry again.
	Fetched bool
	// Converted tells that it was made from a SIF file for this call.
	Converted bool
	// Signers are the names of the keys that have signed it, where a signature is required.
	Signers []string
}

// Schemes is the source that asks, for each scheme of references, the one that knows it.
type Schemes map[imageref.Scheme]Source

// Resolve implements Source.
func (s Schemes) Resolve(ctx context.Context, ref string) (Resolved, error) {
	of, err := s.of(ref)
	if err != nil {
		return Resolved{}, err
	}
	return of.Resolve(ctx, ref)
}

// Provide implements Source.
func (s Schemes) Provide(ctx context.Context, r Resolved, o Provision) (*Provided, error) {
	of, err := s.of(r.Reference)
	if err != nil {
		return nil, err
	}
	return of.Provide(ctx, r, o)
}

func (s Schemes) of(ref string) (Source, error) {
	parsed, err := parse(ref)
	if err != nil {
		return nil, err
	}
	if of := s[parsed.Scheme]; of != nil {
		return of, nil
	}
	return nil, &Error{Ref: short(ref), Kind: ErrInvalid, Cause: fmt.Errorf("this node knows no images that begin with %s", parsed.Scheme.Prefix())}
}
