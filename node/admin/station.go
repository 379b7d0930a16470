package admin

import (
	"context"
	"time"
)

// Station is a node as its administrator sees it. The node implements it, the
// server serves it, and the client is one.
//
// All methods are safe for concurrent use and return soon after ctx has ended.
// A run that the node does not know is ErrNotFound. Callbacks are called one
// after the other from the calling goroutine, never after the method has
// returned, and may be slow: no lock, transaction or loop of the node waits
// for them. An error of a callback ends the method, which returns that error
// as it is. What callbacks get is theirs to keep.
type Station interface {
	// Runs calls fn for each run that the node knows, the highest id first.
	// Without q.All those that wait for room or are over are left out. Runs that come
	// or go meanwhile may be missed, but none comes twice.
	Runs(ctx context.Context, q RunQuery, fn func(*Run) error) error

	// Inspect returns everything that is known of a run, living or not. What
	// cannot be found out (the runtime does not answer, the sandbox is gone)
	// is absent and named in Problems; it is no error. The result has no
	// secrets: of the environment only the names.
	Inspect(ctx context.Context, run int64) (*Inspection, error)

	// Logs calls fn for each line that the run's algorithm has written and,
	// with o.Follow, for each new one until the algorithm has ended and its log
	// is read. A log that does not exist yet is empty; one that is no longer
	// kept is ErrNotFound.
	Logs(ctx context.Context, run int64, o LogOptions, fn func(*LogLine) error) error

	// Stats reads the counters of living runs: of those named, or of all when
	// none is. Of the named ones those that do not live are left out, and one
	// that the node does not know is ErrNotFound. It takes milliseconds and
	// asks the kernel, not the algorithm.
	Stats(ctx context.Context, runs []int64) ([]Usage, error)

	// Top lists the processes in the run's sandbox, in the order of their
	// ids. A run that does not live is ErrState.
	Top(ctx context.Context, run int64) ([]Process, error)

	// Kill makes the run end as killed: SIGTERM, then SIGKILL. It returns when
	// the wish is on disk, and does not wait for the end. It is idempotent; a
	// run whose outcome is decided is ErrState.
	Kill(ctx context.Context, run int64) error

	// Approve lets a run begin that waits for the administrator's approval, and Deny refuses it with words for the
	// sender of the task. They return when the word is on disk and in the audit log, and do not wait for what
	// comes of it. A run that does not wait for it is ErrState.
	Approve(ctx context.Context, run int64) error
	Deny(ctx context.Context, run int64, words string) error

	// Reload reads the configuration again and applies what can be applied without a restart, to runs that are
	// decided on from now on. It is all or nothing: with a file that cannot be used everything stays as it was,
	// and the error, ErrInvalid, says so.
	Reload(ctx context.Context) (*Change, error)

	// Update changes limits of a living run, in its cgroup and, where the
	// runtime can, in the runtime. It is all or nothing, and returns the limits
	// that were read back. A run that does not live is ErrState, a value that
	// the kernel refuses is ErrInvalid, and the run then keeps what it had.
	// A restart of the node does not undo it.
	Update(ctx context.Context, run int64, c LimitChange) (*Limits, error)

	// Events calls fn for each event that the node remembers and, with
	// o.Follow, for each new one until ctx ends.
	Events(ctx context.Context, o EventOptions, fn func(*Event) error) error

	// Queue lists the runs that wait for room, the next one first, and then those
	// that wait for approval.
	Queue(ctx context.Context) ([]Waiting, error)

	// Pause makes the node begin no further run: open ones stay in the queue,
	// living ones go on. It is idempotent and holds, over restarts too, until
	// Resume.
	Pause(ctx context.Context) error
	// Resume ends a pause. It is idempotent.
	Resume(ctx context.Context) error

	// Info describes the node, its session with the server, its runtime and
	// its budget. It does not wait for any of them.
	Info(ctx context.Context) (*Info, error)

	// GC removes what nothing needs, as the node does by itself: images and
	// caches beyond their age or budget, files of runs that are over. A dry run
	// changes nothing and reports what would be removed. What could not be
	// removed carries its error in the report; the method then succeeds all the
	// same. ErrState while the node does not know yet what is in work.
	GC(ctx context.Context, o GCOptions) (*GCReport, error)
}

// GCOptions say what a collection is to do.
type GCOptions struct {
	DryRun bool
	// All removes everything that no living or waiting run needs, whatever its
	// age.
	All bool
}

// RunQuery selects runs.
type RunQuery struct {
	// All adds the runs that wait and those that are over.
	All bool
}

// LogOptions selects lines of a log.
type LogOptions struct {
	Follow bool
	// Since leaves out the lines before that time, if it is not zero.
	Since time.Time
	// Tail leaves out all but the last lines of what is there at the time of
	// the call. Nil leaves out nothing.
	Tail *int
}

// EventOptions selects events.
type EventOptions struct {
	Follow bool
	// Since leaves out the events before that time, if it is not zero.
	Since time.Time
}
