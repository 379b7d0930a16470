package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Errors that callers tell apart with errors.Is. A Station wraps them in a
// sentence for the administrator; they cross the socket with that sentence.
var (
	// ErrNotFound: there is no such run, or what was asked of it is not kept
	// any more.
	ErrNotFound = errors.New("not found")
	// ErrState: the run is not in a state that allows it, such as the kill of
	// a run that has ended.
	ErrState = errors.New("not possible in this state")
	// ErrInvalid: the request makes no sense or the kernel refused its values.
	ErrInvalid = errors.New("invalid request")
	// ErrUnsupported: the runtime or the machine cannot do it.
	ErrUnsupported = errors.New("not supported here")
	// ErrBusy: the node serves as many requests as it is willing to.
	ErrBusy = errors.New("too many requests at a time")
	// ErrRefused: the user may not administer this node.
	ErrRefused = errors.New("permission denied")
	// ErrProtocol: node and program speak different versions of the protocol.
	ErrProtocol = errors.New("different versions of the protocol")
	// ErrStopping: the node stops.
	ErrStopping = errors.New("the node is stopping")
	// ErrInternal: the node failed.
	ErrInternal = errors.New("the node failed")
	// ErrDown: no node answers. Only the client raises it.
	ErrDown = errors.New("the node does not run")
)

// kind is how an error looks on the wire.
type kind struct {
	is     error
	name   string
	status int
}

// kinds is the one table between errors and the wire.
func kinds() []kind {
	return []kind{
		{ErrNotFound, "not-found", http.StatusNotFound},
		{ErrState, "state", http.StatusConflict},
		{ErrInvalid, "invalid", http.StatusBadRequest},
		{ErrUnsupported, "unsupported", http.StatusNotImplemented},
		{ErrBusy, "busy", http.StatusTooManyRequests},
		{ErrRefused, "refused", http.StatusForbidden},
		{ErrProtocol, "protocol", http.StatusUpgradeRequired},
		{ErrStopping, "stopping", http.StatusServiceUnavailable},
		{ErrInternal, "internal", http.StatusInternalServerError},
	}
}

// wireError is an error in a response.
type wireError struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// encodeError says how err is told to the client. stopping tells that the node
// stops, which then explains a context's end.
func encodeError(err error, stopping bool) (*wireError, int) {
	if stopping && (errors.Is(err, context.Canceled) || errors.Is(err, ErrStopping)) {
		return &wireError{Kind: "stopping", Message: "the node stops"}, http.StatusServiceUnavailable
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &wireError{Kind: "internal", Message: "the node did not get it done in time: " + err.Error()}, http.StatusInternalServerError
	}
	for _, k := range kinds() {
		if errors.Is(err, k.is) {
			return &wireError{Kind: k.name, Message: err.Error()}, k.status
		}
	}
	return &wireError{Kind: "internal", Message: err.Error()}, http.StatusInternalServerError
}

// decodeError makes an error of what the node said. A kind that this program
// does not know is the node's failure.
func decodeError(w *wireError) error {
	e := &Problem{Kind: ErrInternal, Message: w.Message}
	for _, k := range kinds() {
		if k.name == w.Kind {
			e.Kind = k.is
		}
	}
	return e
}

// Problem is a sentence for the administrator with a kind from this package,
// which errors.Is finds and the sentence need not repeat.
type Problem struct {
	Kind    error
	Message string
}

func (p *Problem) Error() string { return p.Message }

// Unwrap returns the kind.
func (p *Problem) Unwrap() error { return p.Kind }

// Problemf makes a Problem.
func Problemf(kind error, format string, args ...any) *Problem {
	return &Problem{Kind: kind, Message: fmt.Sprintf(format, args...)}
}
