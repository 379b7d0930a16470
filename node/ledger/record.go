package ledger

import (
	"time"

	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/proxy/forward"
)

// State is how far a run has come. States only ever advance, except that a
// start that provably never reached the algorithm goes back to Received with
// a higher attempt.
type State string

// The states of a run, in their order. Each is written before its step is
// taken: a record in state Starting means that the algorithm may have run.
const (
	Received  State = "received"  // known, nothing done yet
	Preparing State = "preparing" // files, image and sandbox may exist
	Starting  State = "starting"  // the container exists and its start was about to be asked for
	Running   State = "running"   // the runtime confirmed the start
	Exited    State = "exited"    // the outcome is known and final, output and log are on disk
	Delivered State = "delivered" // the server has acknowledged the outcome
	Done      State = "done"      // nothing of the run is left on this machine
)

// Final reports whether the run's outcome can no longer change.
func (s State) Final() bool { return s == Exited || s == Delivered || s == Done }

// Unbegun reports whether the algorithm has certainly not been started.
func (s State) Unbegun() bool { return s == Received || s == Preparing }

// Record is what the node knows of one run. Times are UTC and zero when the
// step has not happened.
type Record struct {
	RunID              int64  `json:"run_id"`
	TaskID             int64  `json:"task_id"`
	JobID              int64  `json:"job_id"`
	ParentID           int64  `json:"parent_id,omitempty"` // task id of the parent, 0 for none
	OrganizationID     int64  `json:"organization_id"`
	CollaborationID    int64  `json:"collaboration_id"`
	InitOrganizationID int64  `json:"init_organization_id"`
	InitUserID         int64  `json:"init_user_id,omitempty"`
	Image              string `json:"image"` // as the task names it
	// Databases are the labels of those that the task asks for; Function is the
	// method that its input names, from state Starting on.
	Databases []string `json:"databases,omitempty"`
	Function  string   `json:"function,omitempty"`
	Pinned    string   `json:"pinned,omitempty"` // repository@digest that runs; of a SIF file sif:name@digest
	File      string   `json:"file,omitempty"`   // digest of the SIF file of an oras:// image
	// RuntimeImage is what the runtime calls the image, where that is not Pinned.
	RuntimeImage string `json:"runtime_image,omitempty"`

	State   State  `json:"state"`
	Attempt uint32 `json:"attempt"`
	// Crashes is how often the algorithm has crashed and was run again.
	Crashes int64 `json:"crashes,omitempty"`
	// SandboxID and ContainerID are the runtime's names of what exists.
	SandboxID   string `json:"sandbox_id,omitempty"`
	ContainerID string `json:"container_id,omitempty"`
	// Limits are what the run is held to, and Devices the CDI names that it has;
	// nil before they are decided.
	Limits  *limits.Limits `json:"limits,omitempty"`
	Devices []string       `json:"devices,omitempty"`
	// InputUse is what the node itself put beside the run's output, in bytes
	// on the disk.
	InputUse int64 `json:"input_use,omitempty"`

	// BlobStored tells that the server expects the result in its blob store, and
	// ResultBlob the name that it has there, "" before it is there for certain.
	BlobStored bool   `json:"blob_stored,omitempty"`
	ResultBlob string `json:"result_blob,omitempty"`

	// Policy is what the policies said of the run, nil before they were asked about its image.
	Policy *Decision `json:"policy,omitempty"`

	// Approval is the administrator's word on the run; nil where nobody was asked.
	Approval *Approval `json:"approval,omitempty"`

	// KillWanted is set when the server asked for the run's end. It is a
	// desired state: it stays until the run has ended.
	KillWanted bool   `json:"kill_wanted,omitempty"`
	KillWhy    string `json:"kill_why,omitempty"` // who asked

	// Outcome, valid from state Exited on.
	Status   string `json:"status,omitempty"`  // the server's status text
	Reason   string `json:"reason,omitempty"`  // the node's typed reason
	Message  string `json:"message,omitempty"` // the sentence that the user reads
	ExitCode int    `json:"exit_code,omitempty"`
	// Use is what the algorithm has used, nil where it was not started or that
	// is not known.
	Use *Use `json:"use,omitempty"`
	// Connections are what the run could connect to and what they have carried.
	Connections []Connection `json:"connections,omitempty"`
	// HasOutput tells that the run directory's output is the result to deliver.
	HasOutput bool `json:"has_output,omitempty"`

	ReceivedAt  time.Time     `json:"received_at"`
	AdmittedAt  time.Time     `json:"admitted_at,omitzero"` // it got its room
	ImageTook   time.Duration `json:"image_took,omitempty"` // to resolve and fetch the image
	StartedAt   time.Time     `json:"started_at,omitzero"`
	EndedAt     time.Time     `json:"ended_at,omitzero"`    // the algorithm
	FinishedAt  time.Time     `json:"finished_at,omitzero"` // the outcome was decided
	DeliveredAt time.Time     `json:"delivered_at,omitzero"`
}

// Decision is what the policies said.
type Decision struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

// Connection is one way out of a run.
type Connection struct {
	At     string `json:"at"`     // HOST:PORT as the algorithm names it
	Kind   string `json:"kind"`   // tcp, unix, tunnel, whitelist or vantage6
	Target string `json:"target"` // where it leads; of the whitelist also "others"
	forward.Count
	AtLeast bool `json:"at_least,omitempty"` // a part may not have been counted, because the node was killed
}

// Approval is the administrator's word on a run that a policy wants approved, about one image.
type Approval struct {
	AskedAt time.Time `json:"asked_at"`
	Why     string    `json:"why"`            // the policy that wants it
	Pinned  string    `json:"pinned"`         // the image that it is about
	File    string    `json:"file,omitempty"` // of an oras:// image the digest of the SIF file

	Answer     Answer    `json:"answer,omitempty"`
	By         string    `json:"by,omitempty"`
	Words      string    `json:"words,omitempty"` // to the sender
	AnsweredAt time.Time `json:"answered_at,omitzero"`
}

// Answer is what the administrator said.
type Answer string

// The answers; empty is none yet.
const (
	Approved Answer = "approved"
	Denied   Answer = "denied"
)

// Use is what everything in a run's control group has used from its creation to
// the algorithm's end. What the kernel does not count is zero.
type Use struct {
	CPU            time.Duration `json:"cpu"` // nanoseconds, like the others
	CPUUser        time.Duration `json:"cpu_user"`
	CPUSystem      time.Duration `json:"cpu_system"`
	Throttled      time.Duration `json:"throttled"` // held back by the CPU limit
	ThrottledTimes int64         `json:"throttled_times"`
	PeakMemory     int64         `json:"peak_memory"` // bytes, file cache included
	ReadBytes      int64         `json:"read_bytes"`  // from block devices
	WrittenBytes   int64         `json:"written_bytes"`
	OOMKills       int64         `json:"oom_kills"`
}

// ImageAtRuntime is what the runtime calls the run's image, "" before it is known.
func (r *Record) ImageAtRuntime() string {
	if r.RuntimeImage != "" {
		return r.RuntimeImage
	}
	return r.Pinned
}
