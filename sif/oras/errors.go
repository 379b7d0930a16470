package oras

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Kinds of failure, for errors.Is.
var (
	// ErrNotFound: the registry has no such artifact.
	ErrNotFound = errors.New("there is no such artifact in the registry")
	// ErrDenied: the registry wants another login, or hides that there is no such artifact.
	ErrDenied = errors.New("the registry refuses access")
	// ErrUnreachable: the registry gave no usable answer. Trying later may help.
	ErrUnreachable = errors.New("the registry cannot be reached")
	// ErrNotSIF: the artifact is there, but is no SIF image.
	ErrNotSIF = errors.New("the artifact is not a SIF image")
	// ErrTooLarge: the file is larger than is allowed.
	ErrTooLarge = errors.New("the SIF image in the registry is too large")
	// ErrDigest: what the registry sent is not what was asked for.
	ErrDigest = errors.New("the registry sent something else than was asked for")
)

// kindOf makes one of the kinds out of a failed request.
func kindOf(err error) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
