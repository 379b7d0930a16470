package admission

import "errors"

// Errors by kind. The text around them is one sentence for the user of the run
// or the administrator.
var (
	// ErrNeverFits: the run asks for more than the budget has, or more than
	// its own ancestors, who wait for it, leave of it.
	ErrNeverFits = errors.New("can never start on this node")
	// ErrStalled: every running run waits for a subtask, none of these fits,
	// and this one was refused so that the others can go on.
	ErrStalled = errors.New("was refused so that waiting runs can go on")
	// ErrNoRoom: a running run's limits cannot be raised now.
	ErrNoRoom = errors.New("there is no room for it in the budget")
	// ErrKnown: the run is queued or admitted already.
	ErrKnown = errors.New("the run is known already")
	// ErrUnknown: the run is neither queued nor admitted.
	ErrUnknown = errors.New("the run is not known here")
	// ErrInvalid: a request or budget makes no sense.
	ErrInvalid = errors.New("invalid amount")
	// ErrClosed: the controller was closed.
	ErrClosed = errors.New("admission has ended")
)
