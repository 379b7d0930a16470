package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kinds of failure, to be tested with errors.Is. An error carries at most one
// of them; one that carries none is a failure that the runtime reported and
// that has no kind of its own.
var (
	// ErrEndpoint means that the endpoint is not written as a unix socket
	// (for example tcp://, or a relative path).
	ErrEndpoint = errors.New("the endpoint is not a unix socket address")
	// ErrEndpointMissing means that nothing exists at the endpoint's path.
	ErrEndpointMissing = errors.New("the endpoint does not exist")
	// ErrNotSocket means that the endpoint's path is something else than a socket.
	ErrNotSocket = errors.New("the endpoint is not a socket")
	// ErrPermission means that this process may not connect to the endpoint.
	ErrPermission = errors.New("no permission to use the endpoint")
	// ErrNotCRI means that something answers, but not CRI v1.
	ErrNotCRI = errors.New("the endpoint does not speak CRI v1")
	// ErrNotReady means that the runtime does not answer now, or says that it
	// or its network is not ready. Trying again later can help.
	ErrNotReady = errors.New("the runtime is not ready")
	// ErrNotFound means that the sandbox or container does not exist (any more).
	ErrNotFound = errors.New("not found")
	// ErrImageNotFound means that the registry, or the runtime's own store, has
	// no such image.
	ErrImageNotFound = errors.New("image not found")
	// ErrImageInUse means that the runtime keeps an image because a container has
	// it, perhaps one that is just being made and is in no list yet.
	ErrImageInUse = errors.New("the image is in use")
	// ErrRegistryDenied means that the registry refuses access to the image.
	ErrRegistryDenied = errors.New("the registry refuses access")
	// ErrRegistryUnreachable means that the registry could not be reached or
	// failed. Trying again later can help.
	ErrRegistryUnreachable = errors.New("the registry cannot be reached")
	// ErrWrongPlatform means that the image exists, but not for this machine.
	ErrWrongPlatform = errors.New("the image is not for this platform")
	// ErrPullStalled means that a pull made no progress for too long.
	ErrPullStalled = errors.New("the pull made no progress")
	// ErrNoSpace means that a file system of the runtime is full.
	ErrNoSpace = errors.New("no space left")
	// ErrReadOnly means that a file system of the runtime cannot be written to.
	ErrReadOnly = errors.New("read-only file system")
	// ErrInvalid means that a request was refused before it was sent, because
	// it could not be carried out as asked.
	ErrInvalid = errors.New("invalid request")
	// ErrClosed means that the client, watcher or follower has ended.
	ErrClosed = errors.New("closed")
)

// Error is a failed operation: one sentence for a user, a kind and the cause
// for the program. Error.Error never spans lines and never exceeds about 1 KiB,
// whatever the runtime or a registry has sent.
type Error struct {
	Op    string // what was tried, as in "start the sandbox vantage6-run-7"
	Kind  error  // one of the kinds above, or nil
	Cause error  // what was returned below, or nil
	text  string // why, when it is better said than by Cause
}

func (e *Error) Error() string {
	why := e.text
	if why == "" && e.Cause != nil {
		why = causeText(e.Cause)
	}
	if why == "" && e.Kind != nil {
		why = e.Kind.Error()
	}
	return "cannot " + e.Op + ": " + why
}

// Unwrap makes errors.Is and errors.As see both the kind and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	if e.Kind != nil {
		all = append(all, e.Kind)
	}
	if e.Cause != nil {
		all = append(all, e.Cause)
	}
	return all
}

// maxErrorText bounds what a runtime's message may take in one of our errors.
const maxErrorText = 1 << 10

func causeText(err error) string {
	msg := err.Error()
	if s, ok := status.FromError(err); ok {
		msg = s.Message()
	}
	return oneLine(msg)
}

// oneLine makes text from outside fit for one line of a log: spaces instead of
// control characters, valid UTF-8, at most maxErrorText bytes.
func oneLine(s string) string {
	cut := false
	if len(s) > maxErrorText {
		s, cut = s[:maxErrorText], true
	}
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if cut {
		s += " (cut)"
	}
	return s
}

// callError turns what a gRPC call returned into an Error. The context is that
// of the caller: when it has ended, its error is the cause, so that
// errors.Is(err, context.Canceled) holds.
func callError(ctx context.Context, op string, timeout time.Duration, err error) error {
	if err == nil {
		return nil
	}
	if cause := ctx.Err(); cause != nil {
		return &Error{Op: op, Cause: cause}
	}
	e := &Error{Op: op, Cause: err}
	switch status.Code(err) {
	case codes.NotFound:
		e.Kind = ErrNotFound
	case codes.Unavailable:
		e.Kind = ErrNotReady
		e.text = "the container runtime is not available (" + causeText(err) + "); check that its service is running"
	case codes.DeadlineExceeded:
		e.Kind = ErrNotReady
		e.text = fmt.Sprintf("the container runtime did not answer within %s; check its service and its log", timeout)
	case codes.Unimplemented:
		e.Kind = ErrNotCRI
	default:
		switch text := strings.ToLower(causeText(err)); {
		case saysNoSpace(text):
			e.Kind = ErrNoSpace
		case strings.Contains(text, "read-only file system"):
			e.Kind = ErrReadOnly
		case strings.Contains(text, "image is in use by"): // CRI-O
			e.Kind = ErrImageInUse
		}
	}
	return e
}

func saysNoSpace(lower string) bool {
	return strings.Contains(lower, "no space left on device") || strings.Contains(lower, "disk quota exceeded")
}

func invalid(op, format string, args ...any) error {
	return &Error{Op: op, Kind: ErrInvalid, text: oneLine(fmt.Sprintf(format, args...))}
}
