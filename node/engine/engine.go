// Package engine starts, watches, stops and removes one algorithm. It is the
// only part of the node that touches what executes algorithms; the rest knows
// the Engine interface, so that another way to execute (a batch system) fits
// behind it.
package engine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/v6node/v6node/runtime"
)

// Where the run's proxy is found inside its sandbox. The address is a loopback
// address of its own, so that the algorithm's own servers do not collide.
const (
	ProxyHost    = "proxyserver"
	ProxyAddress = "127.0.0.2"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrVanished: the run's container or sandbox is gone without an exit.
	ErrVanished = errors.New("the run's sandbox disappeared")
	// ErrNetwork: the sandbox's network is not the node's own, so nothing may
	// start in it.
	ErrNetwork = errors.New("the sandbox's network is not v6node's")
	// ErrProgram: the image's program cannot be executed.
	ErrProgram = errors.New("the image's program cannot be executed")
	// ErrLimit: a limit cannot be applied or is not in force.
	ErrLimit = runtime.ErrLimit
)

// Spec says what is to run.
type Spec struct {
	RunID, TaskID, JobID, OrganizationID int64
	// Attempt distinguishes the sandboxes of one run; it rises with each try.
	Attempt uint32
	// Image is what the runtime calls the image, by a digest. ImageName is what
	// the node calls it, and ImageFile the digest of the SIF file of an oras://
	// image: they are for people who look at the container.
	Image, ImageName, ImageFile string

	Env    []runtime.EnvVar
	Mounts []runtime.Mount
	// LogDir is a directory of this run; LogName the file in it.
	LogDir, LogName string
	Resources       runtime.Resources
	// Rlimits are the resource limits of the algorithm's processes, Devices
	// CDI names.
	Rlimits []runtime.Rlimit
	Devices []string
	// BestEffort lets Open go on without a limit that cannot be applied. It
	// then takes the limit out of Resources, and logs it.
	BestEffort bool
}

// Door is one more listener inside a sandbox.
type Door struct {
	// Address is one of loopback, or that of another machine for which the
	// sandbox then takes the door.
	Address netip.AddrPort
	// Serve serves what connects, until ctx ends or the listener fails. It
	// closes the listener, and returns nil at the end of ctx.
	Serve func(ctx context.Context, l net.Listener) error
}

// Exit is how a container ended.
type Exit struct {
	Code int
	// Lost tells that the runtime does not know how the container ended, which is
	// no reason to trust Code.
	Lost bool
	// OOMKilled tells that the kernel killed a process of the run, not
	// necessarily its first, because memory was short.
	OOMKilled             bool
	StartedAt, FinishedAt time.Time
	// PeakMemory is in bytes, 0 where unknown.
	PeakMemory int64
}

// Living is a sandbox of this node that the runtime knows.
type Living struct {
	RunID     int64
	Attempt   uint32
	SandboxID string
	// ContainerID is empty where the container was not created.
	ContainerID string
	// Started tells whether the container may ever have been started, Exited
	// whether it has ended.
	Started, Exited bool
	Ready           bool
}

// Engine executes algorithms. Implementations are safe for concurrent use;
// calls for one run come one after the other, except Stop and Remove, which
// may come while another call of that run is under way.
type Engine interface {
	Observer
	// Run watches what executes the algorithms until ctx ends, then closes
	// every gateway. Wait answers only while it runs. It is called once.
	Run(ctx context.Context) error
	// Open makes the sandbox and verifies its network. On an error nothing
	// of it is left.
	Open(ctx context.Context, s *Spec) (sandboxID string, err error)
	// Gateway serves h on the run's proxy address inside the sandbox, and
	// every door, until Remove. All are open when it returns, or none is. It may
	// be called again for a sandbox found after a restart.
	Gateway(ctx context.Context, runID int64, sandboxID string, port int, h http.Handler, doors ...Door) error
	// Create makes the container, which does not run yet.
	Create(ctx context.Context, s *Spec, sandboxID string) (containerID string, err error)
	// Verify compares the limits wanted with those in force and returns
	// ErrLimit where they differ. Before Start it looks at what the container
	// is to be started with, afterwards at its processes too. A container that
	// has ended meanwhile differs in nothing.
	Verify(ctx context.Context, s *Spec, containerID string) error
	// Start starts it. An error leaves it open whether it runs: ask List.
	Start(ctx context.Context, containerID string) error
	// Wait returns when the container has ended, or ErrVanished. A gateway that
	// ends before is an error too: the algorithm could wait for it for ever.
	Wait(ctx context.Context, runID int64, containerID string) (*Exit, error)
	// Processes returns the run's processes by their numbers on this machine.
	Processes(ctx context.Context, runID int64) ([]int, error)
	// ReopenLog makes the container's output go to a new file at its log's
	// path, after the old one was renamed. The container must be running.
	ReopenLog(ctx context.Context, containerID string) error
	// Stop sends SIGTERM and, after the grace, SIGKILL. It returns when the
	// container has ended; one that is gone is no error.
	Stop(ctx context.Context, containerID string, grace time.Duration) error
	// Remove ends everything of the run: gateway, containers, sandboxes of
	// all attempts, cgroup. It is idempotent.
	Remove(ctx context.Context, runID int64) error
	// List returns every sandbox of this node.
	List(ctx context.Context) ([]Living, error)
}
