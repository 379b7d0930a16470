package sif

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/sif/image"
	"github.com/v6node/v6node/sif/layer"
	"github.com/v6node/v6node/sif/oras"
	"github.com/v6node/v6node/sif/reference"
	"github.com/v6node/v6node/sif/signature"
	"github.com/v6node/v6node/sif/squashfs"
)

// Kinds of failure, for errors.Is. Every error of a Store is of one of them, or the end
// of a context, or a failure of this machine's disk or memory; the packages below have
// finer kinds.
var (
	// ErrInvalid: the reference cannot be read.
	ErrInvalid = errors.New("invalid reference")
	// ErrNotFound: there is no such image.
	ErrNotFound = errors.New("image not found")
	// ErrDenied: a registry refuses access.
	ErrDenied = errors.New("access denied")
	// ErrUnreachable: a registry gave no usable answer; trying later may help.
	ErrUnreachable = errors.New("registry unreachable")
	// ErrUnusable: the image is there, but cannot be converted: damaged, encrypted, too
	// large, or no SIF at all.
	ErrUnusable = errors.New("unusable image")
	// ErrPlatform: the image is for other machines.
	ErrPlatform = errors.New("wrong platform")
	// ErrSignature: signatures are required, and the image's is not accepted.
	ErrSignature = errors.New("signature not accepted")
	// ErrChanged: the file is no longer the one that was resolved; resolving it again helps.
	ErrChanged = errors.New("file changed")
	// ErrNoSpace: the disk is full.
	ErrNoSpace = errors.New("no space left")
)

// kinds is the one table from what the packages below say to what this one does. The
// first that fits counts.
var kinds = []struct {
	from, to error
}{
	{image.ErrChanged, ErrChanged},
	{signature.ErrRefused, ErrSignature},
	{reference.ErrInvalid, ErrInvalid},
	{reference.ErrNotFound, ErrNotFound},
	{reference.ErrOutside, ErrNotFound},
	{oras.ErrNotFound, ErrNotFound},
	{oras.ErrDenied, ErrDenied},
	{oras.ErrUnreachable, ErrUnreachable},
	{oras.ErrDigest, ErrUnreachable},
	{oras.ErrNotSIF, ErrUnusable},
	{oras.ErrTooLarge, ErrUnusable},
	{image.ErrArchitecture, ErrPlatform},
	{image.ErrNotSIF, ErrUnusable},
	{image.ErrCorrupt, ErrUnusable},
	{image.ErrLimit, ErrUnusable},
	{image.ErrEncrypted, ErrUnusable},
	{image.ErrExt3, ErrUnusable},
	{image.ErrFileSystem, ErrUnusable},
	{image.ErrOverlay, ErrUnusable},
	{image.ErrNoSystem, ErrUnusable},
	{image.ErrSeveralSystems, ErrUnusable},
	{layer.ErrUnrepresentable, ErrUnusable},
	{squashfs.ErrCorrupt, ErrUnusable},
	{squashfs.ErrUnsupported, ErrUnusable},
	{squashfs.ErrLimit, ErrUnusable},
	{unix.ENOSPC, ErrNoSpace},
	{unix.EDQUOT, ErrNoSpace},
}

// Error is a failure with the image's reference: one sentence.
type Error struct {
	Reference string
	Kind      error // one of the kinds above; nil for a failure of this machine
	Cause     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("the SIF image %s cannot be used: %v", e.Reference, e.Cause)
}

// Unwrap gives kind and cause.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Cause}
	}
	return []error{e.Kind, e.Cause}
}

// failed wraps an error with its kind.
func failed(ref string, err error) error {
	var done *Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	e := &Error{Reference: ref, Cause: err}
	for _, k := range kinds {
		if errors.Is(err, k.from) {
			e.Kind = k.to
			break
		}
	}
	return e
}
