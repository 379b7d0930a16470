package admin

import "time"

// Units: sizes are bytes and times are UTC, absent when the step has not
// happened; durations say their unit in the name.

// State is how far a run has come.
type State string

// The states of a run, in their order.
const (
	Held       State = "held"       // waits for the administrator's approval
	Queued     State = "queued"     // waits for room
	Preparing  State = "preparing"  // files, image and sandbox are made
	Starting   State = "starting"   // its container is about to run
	Running    State = "running"    // its algorithm runs
	Delivering State = "delivering" // it is over, and the server has not acknowledged the outcome
	Done       State = "done"       // the server has the outcome, or no longer the run
)

// Waits reports whether nothing was begun for the run yet.
func (s State) Waits() bool { return s == Queued || s == Held }

// Over reports whether the outcome is decided.
func (s State) Over() bool { return s == Delivering || s == Done }

// Run is one run in a list.
type Run struct {
	ID               int64  `json:"id"`
	Task             int64  `json:"task"`
	Job              int64  `json:"job,omitempty"`
	Parent           int64  `json:"parent,omitempty"`            // the task that made this one
	Organization     int64  `json:"organization"`                // that sent the task
	OrganizationName string `json:"organization_name,omitempty"` // absent while the server does not tell it
	User             int64  `json:"user,omitempty"`              // who sent the task

	Image  string `json:"image"`            // as the task names it
	Pinned string `json:"pinned,omitempty"` // repository@digest; of a SIF file sif:name@digest
	File   string `json:"file,omitempty"`   // digest of the SIF file of an oras:// image

	State State `json:"state"`
	// Approval is there once the administrator's word was asked for.
	Approval *Approval `json:"approval,omitempty"`
	// Doing is what is being done for the input or the image of a run that is prepared.
	Doing *ImageProgress `json:"doing,omitempty"`
	// Attempt rises when a start that did not reach the algorithm is repeated.
	Attempt    uint32 `json:"attempt,omitempty"`
	KillWanted bool   `json:"kill_wanted,omitempty"`

	ReceivedAt  time.Time `json:"received_at,omitzero"`
	AdmittedAt  time.Time `json:"admitted_at,omitzero"` // it got its room
	StartedAt   time.Time `json:"started_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`    // the algorithm
	FinishedAt  time.Time `json:"finished_at,omitzero"` // the outcome was decided
	DeliveredAt time.Time `json:"delivered_at,omitzero"`

	// Outcome is there once it is decided.
	Outcome *Outcome `json:"outcome,omitempty"`
	// Accounting is there once the outcome is decided, and while the algorithm
	// runs in an Inspection.
	Accounting *Accounting `json:"accounting,omitempty"`
}

// Approval is the administrator's word on a run that a policy wants approved.
type Approval struct {
	Reason string `json:"reason"` // why it is wanted
	// Function is the method that the run's input names, Databases the labels that it asks for.
	Function  string    `json:"function,omitempty"`
	Databases []string  `json:"databases,omitempty"`
	Pinned    string    `json:"pinned"` // the image that the word is about, with its digest
	AskedAt   time.Time `json:"asked_at"`
	// Answer is "approved" or "denied", empty while the run waits for it.
	Answer     string    `json:"answer,omitempty"`
	By         string    `json:"by,omitempty"`    // the administrator's user
	Words      string    `json:"words,omitempty"` // what a denial says to the sender
	AnsweredAt time.Time `json:"answered_at,omitzero"`
}

// Change is what came of reading the configuration again.
type Change struct {
	// Applied are the keys whose new values hold now, Restart those that need a restart of the node.
	Applied []string `json:"applied"`
	Restart []string `json:"restart"`
	// Warnings are what the file is warned about.
	Warnings []string `json:"warnings"`
}

// ImageProgress is how far an image is. Total is 0 where it is not known.
type ImageProgress struct {
	Doing string `json:"doing"` // reading, downloading, verifying, converting, pulling
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
}

// Outcome is how a run ended.
type Outcome struct {
	Reason   string `json:"reason"`            // the node's reason: docs/operation.md
	Status   string `json:"status"`            // what the server is told, empty where it no longer has the run
	Message  string `json:"message,omitempty"` // the sentence that the researcher reads
	ExitCode int    `json:"exit_code"`
	// Started tells whether the algorithm ran, so that the exit code is its own.
	Started bool `json:"started"`
}

// Inspection is everything that is known of a run.
type Inspection struct {
	Run
	Node string `json:"node"` // the node's name at the runtime

	// Policy is there once the policies were asked about the run's image.
	Policy *Decision `json:"policy,omitempty"`
	// Sandbox, Container, Mounts, EnvNames and Limits.Effective are the runtime's and the kernel's word: they are there
	// for as long as what they tell of exists and the outcome is not decided.
	Sandbox   *Sandbox    `json:"sandbox,omitempty"`
	Container *Container  `json:"container,omitempty"`
	Limits    LimitsState `json:"limits"`
	Mounts    []Mount     `json:"mounts,omitempty"`
	// EnvNames are the names of the variables with which the runtime starts the algorithm, those of its image too.
	EnvNames []string `json:"env_names,omitempty"`
	LogPath  string   `json:"log_path,omitempty"`
	// Connections are all that the run can connect to, with what they have carried so far.
	Connections []Connection `json:"connections,omitempty"`
	// Problems says what could not be found out, and why.
	Problems []string `json:"problems,omitempty"`
}

// Connection is one way out of a run. Bytes are those of the connection or, of HTTP, of requests and of the bodies of
// answers.
type Connection struct {
	At          string `json:"at"`               // HOST:PORT as the algorithm names it
	Kind        string `json:"kind"`             // tcp, unix, tunnel, whitelist, vantage6
	Target      string `json:"target,omitempty"` // where it leads; of the whitelist also "others"
	Connections int64  `json:"connections"`      // or requests
	Failed      int64  `json:"failed"`
	Open        int64  `json:"open"`
	Sent        int64  `json:"sent"` // by the algorithm
	Received    int64  `json:"received"`
	AtLeast     bool   `json:"at_least,omitempty"` // a part may not have been counted, because the node was killed
}

// Decision is what the node's policies said of the run.
type Decision struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason,omitempty"`
}

// Sandbox is the run's sandbox at the runtime.
type Sandbox struct {
	ID        string    `json:"id"`
	Ready     bool      `json:"ready"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	Handler   string    `json:"handler,omitempty"`
	NetNS     string    `json:"netns,omitempty"`
	Cgroup    string    `json:"cgroup,omitempty"`
	PID       int       `json:"pid,omitempty"`
	UserNS    string    `json:"userns,omitempty"` // FIRST:SIZE, the ids that it has of this machine; empty is all
}

// Container is the algorithm's container at the runtime.
type Container struct {
	ID         string    `json:"id"`
	State      string    `json:"state"` // the runtime's: created, running, exited, unknown
	ImageID    string    `json:"image_id,omitempty"`
	CreatedAt  time.Time `json:"created_at,omitzero"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	ExitCode   int       `json:"exit_code"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	PID        int       `json:"pid,omitempty"`
}

// Mount is a file or directory of this machine in the run's container.
type Mount struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	ReadOnly    bool   `json:"read_only"`
}

// LimitsState is what was asked for a run and what the kernel has.
type LimitsState struct {
	Asked     *Limits `json:"asked,omitempty"`     // absent before they are decided
	Effective *Limits `json:"effective,omitempty"` // read back from the cgroup
	// Enforce is "strict" or "best-effort".
	Enforce string `json:"enforce,omitempty"`
}

// Limits hold for one run. Zero is "no limit", unless said otherwise.
type Limits struct {
	Memory            int64    `json:"memory,omitempty"`
	MemorySwap        int64    `json:"memory_swap,omitempty"` // memory and swap together; -1 is unlimited swap
	MemoryReservation int64    `json:"memory_reservation,omitempty"`
	CPUs              float64  `json:"cpus,omitempty"`
	CPUShares         int64    `json:"cpu_shares,omitempty"`
	CpusetCPUs        string   `json:"cpuset_cpus,omitempty"` // "0-3,8"
	CpusetMems        string   `json:"cpuset_mems,omitempty"`
	Pids              int64    `json:"pids_limit,omitempty"` // processes and threads
	ShmSize           int64    `json:"shm_size,omitempty"`
	TmpfsSize         int64    `json:"tmpfs_size,omitempty"`
	InputSize         int64    `json:"input_size,omitempty"`
	OutputSize        int64    `json:"output_size,omitempty"`
	ScratchSize       int64    `json:"scratch_size,omitempty"`
	LogSize           int64    `json:"log_size,omitempty"`
	Ulimits           []Ulimit `json:"ulimits,omitempty"`
	Devices           []string `json:"devices,omitempty"` // CDI names
	OOMScoreAdj       *int64   `json:"oom_score_adj,omitempty"`
	TimeoutSeconds    float64  `json:"timeout_seconds,omitempty"`
}

// Ulimit is one resource limit of the algorithm's processes; -1 is unlimited.
type Ulimit struct {
	Name string `json:"name"` // "nofile"
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// LimitChange names the limits to change. Nil leaves a limit as it is, and
// values mean what they mean in Limits.
type LimitChange struct {
	Memory            *int64   `json:"memory,omitempty"`
	MemorySwap        *int64   `json:"memory_swap,omitempty"`
	MemoryReservation *int64   `json:"memory_reservation,omitempty"`
	CPUs              *float64 `json:"cpus,omitempty"`
	CPUShares         *int64   `json:"cpu_shares,omitempty"`
	CpusetCPUs        *string  `json:"cpuset_cpus,omitempty"`
	CpusetMems        *string  `json:"cpuset_mems,omitempty"`
	Pids              *int64   `json:"pids_limit,omitempty"`
	TimeoutSeconds    *float64 `json:"timeout_seconds,omitempty"` // from the algorithm's start
	LogSize           *int64   `json:"log_size,omitempty"`        // bytes that the log may take on the disk
}

// Empty reports whether nothing is to change.
func (c LimitChange) Empty() bool { return c == LimitChange{} }

// Accounting is what a run has used and how long its steps took, so far.
type Accounting struct {
	CPUSeconds       float64 `json:"cpu_seconds"`
	CPUUserSeconds   float64 `json:"cpu_user_seconds"`
	CPUSystemSeconds float64 `json:"cpu_system_seconds"`
	ThrottledSeconds float64 `json:"throttled_seconds"`
	ThrottledPeriods int64   `json:"throttled_periods"`
	PeakMemory       int64   `json:"peak_memory"`
	ReadBytes        int64   `json:"read_bytes"` // from block devices
	WrittenBytes     int64   `json:"written_bytes"`
	OOMKills         int64   `json:"oom_kills"`

	QueueSeconds    float64 `json:"queue_seconds"`    // from receipt to admission
	ImageSeconds    float64 `json:"image_seconds"`    // to resolve and fetch the image, within StartSeconds
	StartSeconds    float64 `json:"start_seconds"`    // from admission to the algorithm's start
	RunSeconds      float64 `json:"run_seconds"`      // from the start to the end
	DeliverySeconds float64 `json:"delivery_seconds"` // from the decision to the server's acknowledgement
}

// LogLine is a line that an algorithm wrote.
type LogLine struct {
	Time   time.Time `json:"time,omitzero"`
	Stream string    `json:"stream"` // stdout, stderr; empty where the log file is damaged
	Text   []byte    `json:"text"`   // any bytes, without the newline, 64 KiB at most
	// Partial means that the line goes on in the stream's next LogLine.
	Partial bool `json:"partial,omitempty"`
}

// Usage is what a living run uses at one moment. Counters count from the run's
// start.
type Usage struct {
	Run       int64     `json:"run"`
	Task      int64     `json:"task"`
	Time      time.Time `json:"time"`
	StartedAt time.Time `json:"started_at,omitzero"`

	CPUNanos       int64 `json:"cpu_nanos"`
	ThrottledNanos int64 `json:"throttled_nanos"`
	Memory         int64 `json:"memory"` // without what the kernel can drop at once (inactive file cache)
	// MemoryLimit is the run's limit, or the machine's memory where it has none.
	MemoryLimit  int64 `json:"memory_limit"`
	Pids         int64 `json:"pids"`
	PidsLimit    int64 `json:"pids_limit,omitempty"` // 0 for none
	ReadBytes    int64 `json:"read_bytes"`
	WrittenBytes int64 `json:"written_bytes"`
}

// Stats is a usage with what can be said of it at a glance.
type Stats struct {
	Usage
	// CPUPercent is 100 for one CPU in use all the time: since the sample
	// before, in the first sample since the run's start.
	CPUPercent    float64 `json:"cpu_percent"`
	MemoryPercent float64 `json:"memory_percent"` // of MemoryLimit
}

// Process is one process of a run.
type Process struct {
	PID        int     `json:"pid"` // as this machine counts
	PPID       int     `json:"ppid"`
	User       string  `json:"user"` // name or number on this machine
	State      string  `json:"state"`
	Threads    int     `json:"threads"`
	CPUPercent float64 `json:"cpu_percent"` // over the process's life
	// CPUSeconds and ElapsedSeconds are the CPU time and the age.
	CPUSeconds     float64 `json:"cpu_seconds"`
	ElapsedSeconds float64 `json:"elapsed_seconds"`
	Memory         int64   `json:"memory"` // resident
	Command        string  `json:"command"`
}

// EventType says what happened.
type EventType string

// The types of events.
const (
	EventReceived     EventType = "received" // the server offered the run
	EventHeld         EventType = "held"     // it waits for the administrator's approval
	EventApproved     EventType = "approved"
	EventDenied       EventType = "denied"
	EventQueued       EventType = "queued"      // it has to wait
	EventAdmitted     EventType = "admitted"    // it got its room
	EventImage        EventType = "image"       // its image was fetched or converted
	EventStarted      EventType = "started"     // its algorithm runs
	EventRetried      EventType = "retried"     // its start failed and is tried again
	EventOOM          EventType = "oom"         // the kernel killed a process of it
	EventTimeout      EventType = "timeout"     // its time is over
	EventKilled       EventType = "killed"      // its end was asked for
	EventUpdated      EventType = "updated"     // its limits were changed
	EventExited       EventType = "exited"      // its outcome is decided
	EventDelivered    EventType = "delivered"   // the server has the outcome
	EventUndelivered  EventType = "undelivered" // the server no longer has the run
	EventRemoved      EventType = "removed"     // nothing of it is left on the machine
	EventConnected    EventType = "connected"   // the session with the server is up
	EventDisconnected EventType = "disconnected"
	EventPaused       EventType = "paused"
	EventResumed      EventType = "resumed"
	EventReloaded     EventType = "reloaded" // the configuration was read again
	EventGC           EventType = "gc"       // something was removed to make room
	EventLost         EventType = "lost"     // the journal had no room for earlier events
)

// EventTypes are the types of what happens in a node. EventLost is not one of
// them: it happens to a reader.
func EventTypes() []EventType {
	return []EventType{
		EventReceived, EventHeld, EventApproved, EventDenied, EventQueued, EventAdmitted, EventImage, EventStarted, EventRetried, EventOOM, EventTimeout, EventKilled,
		EventUpdated, EventExited, EventDelivered, EventUndelivered, EventRemoved, EventConnected, EventDisconnected, EventPaused, EventResumed, EventReloaded, EventGC,
	}
}

// Event is something that happened in the node.
type Event struct {
	Time    time.Time `json:"time"`
	Type    EventType `json:"type"`
	Run     int64     `json:"run,omitempty"`
	Task    int64     `json:"task,omitempty"`
	Message string    `json:"message,omitempty"`
	// Attributes are details for programs, such as exit_code.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Waiting is a run in the queue.
type Waiting struct {
	Position         int       `json:"position"` // from 1; 0 for a run that waits for approval and has no turn
	Run              int64     `json:"run"`
	Task             int64     `json:"task"`
	Image            string    `json:"image"`
	Organization     int64     `json:"organization"`
	OrganizationName string    `json:"organization_name,omitempty"`
	Since            time.Time `json:"since"`
	Needs            Resources `json:"needs"`
	// Reason says in one sentence what it waits for.
	Reason string `json:"reason"`
}

// Resources is an amount of what the node shares out. In a budget, zero memory,
// CPUs, pids or runs is no limit.
type Resources struct {
	Memory  int64            `json:"memory"`
	CPUs    float64          `json:"cpus"`
	Pids    int64            `json:"pids"`
	Runs    int64            `json:"runs"`
	Devices map[string]int64 `json:"devices,omitempty"` // by kind: nvidia.com/gpu
}

// Info describes a node.
type Info struct {
	Node    NodeInfo    `json:"node"`
	Session SessionInfo `json:"session"`
	Runtime RuntimeInfo `json:"runtime"`
	Budget  BudgetInfo  `json:"budget"`
	Runs    RunCounts   `json:"runs"`
	// Lacking is what keeps the node from taking runs, as /readyz says it.
	Lacking []Lack `json:"lacking,omitempty"`
}

// Lack is a condition for taking runs that is not met.
type Lack struct {
	Condition string `json:"condition"`
	Message   string `json:"message"`
}

// NodeInfo is the node itself.
type NodeInfo struct {
	ID            int64     `json:"id,omitempty"` // at the server, 0 before the first login
	Name          string    `json:"name,omitempty"`
	Organization  string    `json:"organization,omitempty"`
	Collaboration string    `json:"collaboration,omitempty"`
	Encrypted     bool      `json:"encrypted"`
	Instance      string    `json:"instance"` // its name at the runtime
	Version       string    `json:"version"`
	PID           int       `json:"pid"`
	StartedAt     time.Time `json:"started_at"`
	StateDir      string    `json:"state_dir"`
	Paused        bool      `json:"paused"`
	PausedAt      time.Time `json:"paused_at,omitzero"`
	Memory        int64     `json:"memory"` // resident
}

// SessionInfo is the session with the server.
type SessionInfo struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`     // connected or not since then
	SyncedAt  time.Time `json:"synced_at,omitzero"` // the last full look at the open runs
	Error     string    `json:"error,omitempty"`    // why it is not connected
}

// RuntimeInfo is the container runtime and what it can do.
type RuntimeInfo struct {
	Endpoint      string    `json:"endpoint"`
	Managed       bool      `json:"managed"` // started and supervised by the node
	Name          string    `json:"name"`
	Version       string    `json:"version"`
	APIVersion    string    `json:"api_version"`
	CgroupDriver  string    `json:"cgroup_driver"`
	CgroupVersion int       `json:"cgroup_version"`
	AppArmor      bool      `json:"apparmor"`
	Seccomp       bool      `json:"seccomp"`
	Handler       string    `json:"handler,omitempty"` // that algorithms use; empty is the runtime's default
	Handlers      []Handler `json:"handlers,omitempty"`
	TellsDriver   bool      `json:"tells_cgroup_driver"`  // the driver is the runtime's own answer
	Events        string    `json:"events,omitempty"`     // yes or no; empty until it is known
	CDI           bool      `json:"cdi"`                  // devices can be asked for
	MinMemory     int64     `json:"min_memory,omitempty"` // bytes: the least memory limit that it takes
}

// Handler is a way in which the runtime runs containers.
type Handler struct {
	Name              string `json:"name"`
	UserNamespaces    bool   `json:"user_namespaces"`
	RecursiveReadOnly bool   `json:"recursive_read_only"`
}

// BudgetInfo is what the node shares out among its runs.
type BudgetInfo struct {
	Total Resources `json:"total"`
	Used  Resources `json:"used"`
}

// RunCounts counts the runs by state.
type RunCounts struct {
	Held       int `json:"held,omitempty"`
	Queued     int `json:"queued"`
	Preparing  int `json:"preparing"` // and starting
	Running    int `json:"running"`
	Delivering int `json:"delivering"`
}

// GCReport is what a collection removed, or would remove.
type GCReport struct {
	DryRun bool     `json:"dry_run"`
	Items  []GCItem `json:"items"`
	// Freed is the sum of the sizes of what is gone, or would be.
	Freed int64 `json:"freed"`
	// Problems are what kept the node from looking at some of its things.
	Problems []string `json:"problems,omitempty"`
}

// GCItem is one thing that nothing needs.
type GCItem struct {
	Kind   string    `json:"kind"` // image, cache, run, scratch, log, spool, record
	Name   string    `json:"name"`
	Size   int64     `json:"size"`
	UsedAt time.Time `json:"used_at,omitzero"` // when it was used last
	Reason string    `json:"reason"`           // why it may go
	Error  string    `json:"error,omitempty"`  // why it could not
}
