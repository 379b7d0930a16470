package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Kinds of failure, for errors.Is. Every error of a Source's Resolve is one of them, or the caller's own context error.
var (
	// ErrInvalid: the text is no image reference, or what the registry holds is no container image.
	ErrInvalid = errors.New("invalid image")
	// ErrNotFound: the registry says that there is no such image.
	ErrNotFound = errors.New("image not found")
	// ErrDenied: the registry wants another login, or hides that the image does not exist.
	ErrDenied = errors.New("registry refuses access")
	// ErrUnreachable: the registry gave no usable answer. Trying later may help.
	ErrUnreachable = errors.New("registry cannot be reached")
	// ErrWrongPlatform: the image exists, but not for this machine.
	ErrWrongPlatform = errors.New("image is not for this platform")
	// ErrSignature: a signature is required, and the image's is missing or not accepted.
	ErrSignature = errors.New("signature of the image is not accepted")
	// ErrChanged: the image's file changed while it was read.
	ErrChanged = errors.New("image changed meanwhile")
	// ErrConversion: this machine could not convert the image.
	ErrConversion = errors.New("image could not be converted")
)

// errClosed is the reason after Close.
var errClosed = errors.New("the node is stopping")

// Error is a failed look-up: one sentence that names the image, the reason and what to do.
type Error struct {
	Ref   string // the image as asked for
	Kind  error  // one of the kinds above
	Cause error  // what was found; may be nil

	text string // the sentence, where it is not made of the above
}

func (e *Error) Error() string {
	if e.text != "" {
		return e.text
	}
	what := map[error]string{
		ErrInvalid:       "cannot be used as a container image",
		ErrNotFound:      "does not exist at its registry",
		ErrDenied:        "cannot be read: its registry refuses access or hides that it does not exist",
		ErrUnreachable:   "cannot be looked up: its registry gave no usable answer",
		ErrWrongPlatform: "does not run on this machine",
	}[e.Kind]
	do := map[error]string{
		ErrInvalid:       "check the name",
		ErrNotFound:      "check the name and the tag",
		ErrDenied:        "check the name, and the login in docker_registries or registries.auth_files",
		ErrUnreachable:   "check the network and the registry, then try again",
		ErrWrongPlatform: "build it for this platform too",
	}[e.Kind]
	if e.Cause == nil {
		return fmt.Sprintf("the image %s %s; %s", e.Ref, what, do)
	}
	return fmt.Sprintf("the image %s %s (%v); %s", e.Ref, what, e.Cause, do)
}

// reason is what was found.
func (e *Error) reason() error {
	if e.Cause != nil {
		return e.Cause
	}
	return e.Kind
}

// Unwrap makes both the kind and the cause visible to errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// answer is a registry's refusal without the request: addresses that registries redirect to carry signatures.
type answer struct {
	status  int
	message string
}

func (a answer) Error() string {
	text := fmt.Sprintf("HTTP %d %s", a.status, http.StatusText(a.status))
	if a.message != "" {
		text += ": " + a.message
	}
	return text
}

// classify turns what the registry library returns into an Error.
func classify(ref string, err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	var status *transport.Error
	if errors.As(err, &status) {
		a := answer{status: status.StatusCode}
		if len(status.Errors) > 0 {
			a.message = short(string(status.Errors[0].Code) + " " + status.Errors[0].Message)
		}
		kind := ErrInvalid
		switch code := status.StatusCode; {
		case code == http.StatusUnauthorized, code == http.StatusForbidden:
			kind = ErrDenied
		case code == http.StatusNotFound, code == http.StatusGone:
			kind = ErrNotFound
		case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code < 400:
			kind = ErrUnreachable
		}
		return &Error{Ref: ref, Kind: kind, Cause: a}
	}
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &typed) {
		return &Error{Ref: ref, Kind: ErrInvalid, Cause: errors.New("its registry sent something that is not a manifest")}
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer in time: %w", err)
	}
	return &Error{Ref: ref, Kind: ErrUnreachable, Cause: err}
}

// short keeps a registry's text from filling a log.
func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// mayUseLocal reports whether a failure leaves open that the runtime's own copy is what was meant: images that were
// never pushed are unknown to, or hidden by, their registry.
func mayUseLocal(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrDenied)
}
