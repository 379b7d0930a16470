package server

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"
)

// API is one vantage6 server for one node. All methods may be used from several goroutines; all
// but Connect, Listen and Upstream need an earlier successful Connect.
//
// Errors are of these kinds, to be told apart with errors.Is, errors.As, Retryable and Passing:
// ErrBadAPIKey, ErrUnreachable (network, TLS or time-out: try again), ErrAlreadyFinished, ErrNoRun
// (of calls about one run: ask again before anything is given up), ErrTooLarge, *StatusError (the server answered with an HTTP error), or the context's error.
// A call that was refused for its token has been repeated once with a new one. Nothing else is
// repeated here: when to try again is the caller's decision. Every call may be repeated.
type API interface {
	// Connect logs in and learns who this node is. It may be called again, to learn of changes.
	Connect(ctx context.Context) (*Identity, error)
	// OpenRuns lists this node's unfinished runs, of one task or, with 0, of all, highest id
	// first. The list is read page by page while the server changes: a run that is missing from
	// it may still be open, which only Run can tell.
	OpenRuns(ctx context.Context, taskID int64) ([]*Run, error)
	// Run reads one run. Of its task it may only know the id.
	Run(ctx context.Context, id int64) (*Run, error)
	// MarkStarted records when work on the run began.
	MarkStarted(ctx context.Context, runID int64, at time.Time) error
	// ContainerToken makes the token that the run's algorithm uses. The image must be the task's,
	// letter by letter.
	ContainerToken(ctx context.Context, taskID int64, image string) (string, error)
	// MarkActive says that the algorithm runs.
	MarkActive(ctx context.Context, runID int64) error
	// Finish delivers the outcome in one request. ErrAlreadyFinished means that the server has an
	// outcome for the run: a former try's whose answer was lost, or "killed by user".
	Finish(ctx context.Context, runID int64, f Final) error
	// FinishFrom is Finish with the result (f.Result is ignored) read from a source of exactly
	// size bytes, in constant memory. The result must be printable ASCII without quote and
	// backslash, as base64 and encrypted results are. Source is called once per try and its
	// reader closed.
	FinishFrom(ctx context.Context, runID int64, f Final, size int64, source func() (io.ReadCloser, error)) error
	// ReleasePorts forgets the ports that the server has recorded for the run.
	ReleasePorts(ctx context.Context, runID int64) error
	// OrganizationKey is an organization's public key as stored (base64), "" when it has none.
	OrganizationKey(ctx context.Context, organizationID int64) (string, error)
	// OrganizationName is an organization's name.
	OrganizationName(ctx context.Context, organizationID int64) (string, error)
	// StoreAddresses are the addresses of an algorithm store as the server has it: alone and, where the server
	// tells the path of its API, with that.
	StoreAddresses(ctx context.Context, storeID int64) ([]string, error)
	// SetOrganizationKey stores the public key of this node's organization.
	SetOrganizationKey(ctx context.Context, organizationID int64, key string) error
	// BlobStore tells whether the server keeps the inputs and results of new runs in a blob store. The
	// answer is the server's configuration: ask once per connection. Of a run, BlobStored tells.
	BlobStore(ctx context.Context) (bool, error)
	// ReadBlob passes the content of the blob with this id to out, at most once; ErrNoBlobID is the error where
	// the id is none. out reads to the end; its errors, but those of the reader, are returned as they are. The server
	// tells no length: whether the content is whole, it must show itself.
	ReadBlob(ctx context.Context, id string, out func(io.Reader) error) error
	// WriteBlob stores what source reads as a new blob and returns its id, in constant memory. Source is called
	// once per try and its reader closed; its errors are returned as they are. A blob whose id was lost
	// on the way stays at the server, which offers no way to remove it.
	WriteBlob(ctx context.Context, source func() (io.ReadCloser, error)) (string, error)
	// Listen keeps the event socket open, for ever: it reconnects after every failure, with a
	// growing random delay, also while the API key is not accepted. It returns only when ctx ends
	// (with its error). The handler is called for one event at a time and at once;
	// while it works no other event is read, so it should only pass the event on. One Listen at
	// a time.
	Listen(ctx context.Context, handler func(ctx context.Context, e Event)) error
	// EmitStatus, EmitLog, EmitNodeInfo and EmitNodeMetrics announce things to the server, and
	// through it to users and other nodes, in the order of the calls. They never block. What cannot
	// be sent now is kept until the socket is back: the latest node info and metrics, the latest
	// 10 000 status changes, and the latest 1 MiB of logs; how many were dropped is logged.
	// Delivery is not certain: nothing may depend on it.
	EmitStatus(StatusChange)
	EmitLog(LogChunk)
	EmitNodeInfo(info map[string]any)
	EmitNodeMetrics(metrics map[string]any)
	// Upstream is the address of the server's REST API and the HTTP client for it, for the proxy.
	// The client adds no credentials and follows no redirects.
	Upstream() (*url.URL, *http.Client)
}

// Identity says who the node is and for whom it works.
type Identity struct {
	NodeID, OrganizationID, CollaborationID       int64
	NodeName, OrganizationName, CollaborationName string
	OrganizationKey                               string // public key as stored at the server, "" when none
	Encrypted                                     bool   // the collaboration demands end-to-end encryption
}

// Run is one execution of a task's algorithm at this node. Ids are 0 where there is none.
type Run struct {
	ID, TaskID, JobID, ParentID     int64
	OrganizationID, CollaborationID int64
	InitOrganizationID, InitUserID  int64
	StudyID, StoreID                int64
	Image, TaskName, Status         string
	Input                           string // as stored: base64, encrypted, or the id of a blob
	BlobStored                      bool   // the server keeps the input in its blob store, and expects the result there
	Databases                       []Database
	StartedAt, FinishedAt           *time.Time // UTC
}

// Database is a database that the task asks for. Parameters is a JSON text, or "".
type Database struct{ Label, Parameters string }

// Status is the state of a run as the server knows it.
type Status string

// The server accepts exactly these.
const (
	StatusPending      Status = "pending"
	StatusInitializing Status = "initializing"
	StatusActive       Status = "active"
	StatusCompleted    Status = "completed"
	StatusFailed       Status = "failed"
	StatusStartFailed  Status = "start failed"
	StatusNoImage      Status = "non-existing Docker image"
	StatusCrashed      Status = "crashed"
	StatusKilled       Status = "killed by user"
	StatusNotAllowed   Status = "not allowed"
	StatusUnknown      Status = "unknown error"
)

// Final is the outcome of a run. A zero FinishedAt means now: without a time the server would
// offer the run again for ever.
type Final struct {
	Status     Status
	Result     string // base64 or encrypted; "" when there is none
	Log        string
	FinishedAt time.Time
}

// StatusChange is announced to the collaboration. ParentID is 0 for a task without a parent.
type StatusChange struct {
	RunID, TaskID, ParentID int64
	Status                  Status
}

// LogChunk is a piece of a run's output, whole lines if possible.
type LogChunk struct {
	RunID, TaskID int64
	Log           string
}

// EventKind says what an Event is about.
type EventKind int

const (
	// Synced: the socket is up and the server knows this node. List the open runs and send the
	// node info; whatever happened since the last Disconnected has been missed.
	Synced EventKind = iota + 1
	// Poll: PollInterval has passed since the last Synced or Poll. List the open runs.
	Poll
	// NewTask: TaskID (and ParentID) may have a run for this node.
	NewTask
	// Kill: Kill says which runs of this node must end.
	Kill
	// RunChanged: the run RunID of some node in the collaboration has changed. TaskID and Status
	// are set if the server told them. The node's own changes come back too.
	RunChanged
	// Disconnected: the socket was up and no longer is.
	Disconnected
)

func (k EventKind) String() string {
	switch k {
	case Synced:
		return "synced"
	case Poll:
		return "poll"
	case NewTask:
		return "new task"
	case Kill:
		return "kill"
	case RunChanged:
		return "run changed"
	case Disconnected:
		return "disconnected"
	}
	return "unknown event"
}

// Event wakes the node up. Ids that the server did not tell are 0.
type Event struct {
	Kind                                    EventKind
	TaskID, RunID, ParentID, JobID          int64
	NodeID, OrganizationID, CollaborationID int64
	Status                                  Status
	Kill                                    *KillOrder // only for Kill
}

// KillOrder lists what to end: all runs of this node, or those in Runs, and what descends from
// them. Tasks are those that the order names, also those whose runs are at other nodes: a subtask
// of theirs may be here.
type KillOrder struct {
	All   bool
	Runs  []KillRun
	Tasks []int64
}

// KillRun names a run to end; RunID is 0 if the server only named the task.
type KillRun struct{ RunID, TaskID int64 }
