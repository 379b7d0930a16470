package node

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/runtime"
)

// Reason is why a run ended as it did. Each maps to one status of the server, but that of a run that is not there.
type Reason string

// The reasons.
const (
	ReasonCompleted   Reason = "completed"
	ReasonCrashed     Reason = "crashed"       // the algorithm ended with an error
	ReasonMemory      Reason = "memory"        // the kernel killed it, or a part of it, for want of memory
	ReasonTimeout     Reason = "timeout"       // it ran longer than it may
	ReasonSpace       Reason = "space"         // it wrote more to the disk than it may
	ReasonRoom        Reason = "room"          // it asks for more than this node has
	ReasonLimit       Reason = "limit"         // a limit could not be applied to it
	ReasonNoOutput    Reason = "no output"     // it ended well but wrote nothing
	ReasonBadOutput   Reason = "bad output"    // its output is not a plain file or too large
	ReasonKilled      Reason = "killed"        // the server asked for its end
	ReasonPolicy      Reason = "policy"        // this node does not allow it
	ReasonNoImage     Reason = "no image"      // there is no such image for this machine
	ReasonRegistry    Reason = "registry"      // the registry refused or did not answer
	ReasonDatabase    Reason = "database"      // a database is missing or unreadable
	ReasonInput       Reason = "input"         // the input cannot be decoded or decrypted
	ReasonNetwork     Reason = "network"       // the sandbox's network is not ours
	ReasonStart       Reason = "start"         // the runtime could not start it
	ReasonVanished    Reason = "vanished"      // the sandbox disappeared
	ReasonDisk        Reason = "disk"          // the node's disk is full or broken
	ReasonUndelivered Reason = "undeliverable" // the result cannot be encrypted or was refused
	ReasonGone        Reason = "gone"          // the server no longer has the run
	ReasonInternal    Reason = "internal"      // the node failed
)

// statusOf is the one table from reason to status.
var statusOf = map[Reason]server.Status{
	ReasonCompleted:   server.StatusCompleted,
	ReasonCrashed:     server.StatusCrashed,
	ReasonMemory:      server.StatusCrashed,
	ReasonTimeout:     server.StatusCrashed,
	ReasonSpace:       server.StatusCrashed,
	ReasonRoom:        server.StatusStartFailed,
	ReasonLimit:       server.StatusStartFailed,
	ReasonNoOutput:    server.StatusCrashed,
	ReasonBadOutput:   server.StatusCrashed,
	ReasonKilled:      server.StatusKilled,
	ReasonPolicy:      server.StatusNotAllowed,
	ReasonNoImage:     server.StatusNoImage,
	ReasonRegistry:    server.StatusNoImage,
	ReasonDatabase:    server.StatusStartFailed,
	ReasonInput:       server.StatusStartFailed,
	ReasonNetwork:     server.StatusStartFailed,
	ReasonStart:       server.StatusStartFailed,
	ReasonVanished:    server.StatusCrashed,
	ReasonDisk:        server.StatusStartFailed,
	ReasonUndelivered: server.StatusFailed,
	ReasonGone:        "", // there is nobody to tell
	ReasonInternal:    server.StatusUnknown,
}

// outcome is how a run ended.
type outcome struct {
	reason   Reason
	message  string // one sentence for the user, empty on success
	exitCode int
	output   bool // the workspace holds a result to deliver
}

// refusal is a failure whose reason is known where it is raised.
type refusal struct {
	reason Reason
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(reason Reason, err error) error {
	if err == nil {
		return nil
	}
	return &refusal{reason: reason, err: err}
}

// classify turns the error that ended a run's preparation into its outcome.
func classify(err error) outcome {
	reason := ReasonInternal
	var r *refusal
	switch {
	case diskFailed(err):
		return outcome{reason: ReasonDisk, message: fmt.Sprintf(
			"a disk of the node is full, read-only or broken (%v): ask the node's administrator to look after it, then send the task again", err)}
	case errors.As(err, &r):
		reason = r.reason
	case errors.Is(err, workspace.ErrDatabase):
		reason = ReasonDatabase
	case errors.Is(err, engine.ErrNetwork):
		reason = ReasonNetwork
	case errors.Is(err, engine.ErrLimit):
		reason = ReasonLimit
	case errors.Is(err, engine.ErrVanished):
		reason = ReasonVanished
	case errors.Is(err, image.ErrSignature):
		reason = ReasonPolicy
	case errors.Is(err, image.ErrConversion):
		reason = ReasonStart
	case errors.Is(err, image.ErrNotFound), errors.Is(err, image.ErrWrongPlatform), errors.Is(err, image.ErrInvalid), errors.Is(err, image.ErrChanged),
		errors.Is(err, runtime.ErrImageNotFound), errors.Is(err, runtime.ErrWrongPlatform):
		reason = ReasonNoImage
	case errors.Is(err, image.ErrDenied), errors.Is(err, image.ErrUnreachable),
		errors.Is(err, runtime.ErrRegistryDenied), errors.Is(err, runtime.ErrRegistryUnreachable), errors.Is(err, runtime.ErrPullStalled):
		reason = ReasonRegistry
	case errors.Is(err, context.DeadlineExceeded):
		reason = ReasonStart
	}
	return outcome{reason: reason, message: err.Error()}
}

// diskFailed tells whether an error is that of a disk that cannot be written to.
func diskFailed(err error) bool {
	for _, is := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, runtime.ErrNoSpace, runtime.ErrReadOnly} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// killedCode is the exit code of a program that SIGKILL has ended.
const killedCode = 128 + int(unix.SIGKILL)

// unseenCode is what containerd takes for the exit code of a container whose shim
// has died.
const unseenCode = 255

// judge turns a container's exit and what it left behind into an outcome.
func judge(exit *engine.Exit, size int64, l limits.Limits, outputErr error) outcome {
	if !exit.OOMKilled {
		return judgeOutput(exit, size, l.OutputSize, outputErr)
	}
	why := "the machine ran out of memory"
	if l.Memory > 0 {
		why = "memory limit " + units.FormatSize(l.Memory) + " reached"
	}
	if exit.PeakMemory > 0 {
		why += " (peak " + units.FormatSize(exit.PeakMemory) + ")"
	}
	// Whatever the rest made of it: a result without what the killed process
	// should have added is not one to publish.
	return outcome{
		reason: ReasonMemory, exitCode: exit.Code,
		message: fmt.Sprintf("killed: %s, exit code %d: use less memory or ask the node's administrator for more", why, exit.Code),
	}
}

func judgeOutput(exit *engine.Exit, size, limit int64, outputErr error) outcome {
	switch {
	case exit.Lost:
		return outcome{reason: ReasonCrashed, exitCode: exit.Code, message: "the container runtime, or its monitor of the algorithm, died when the algorithm ended and does not know how that was, so its result is not trusted: send the task again"}
	case exit.Code == killedCode:
		return outcome{reason: ReasonCrashed, exitCode: exit.Code, message: fmt.Sprintf(
			"the algorithm ended with exit code %d, as a program that was killed, and not by this node: its own log may say why; else ask the node's administrator who killed it, its container's monitor or its control group", exit.Code)}
	case exit.Code == unseenCode:
		return outcome{reason: ReasonCrashed, exitCode: exit.Code, message: fmt.Sprintf(
			"the algorithm ended with exit code %d, which is also what the container runtime says when its monitor was killed and nobody saw the end: its own log may say why; else ask the node's administrator", exit.Code)}
	case exit.Code != 0:
		return outcome{reason: ReasonCrashed, exitCode: exit.Code, message: fmt.Sprintf("the algorithm ended with exit code %d: its own log says why", exit.Code)}
	case errors.Is(outputErr, workspace.ErrNoOutput):
		return outcome{reason: ReasonNoOutput, message: "the algorithm ended with exit code 0 but wrote no output: it must write its result to the file that OUTPUT_FILE names"}
	case errors.Is(outputErr, workspace.ErrUnsafeOutput):
		return outcome{reason: ReasonBadOutput, message: "the algorithm replaced its output file by something that is not a regular file: it must write to the file that OUTPUT_FILE names"}
	case outputErr != nil:
		return outcome{reason: ReasonInternal, message: fmt.Sprintf("the algorithm's output cannot be read: %v", outputErr)}
	case limit > 0 && size > limit:
		return outcome{reason: ReasonBadOutput, message: fmt.Sprintf("the algorithm's output has %d bytes and this node delivers %d at most: return less or ask the node's administrator to raise limits.output_size", size, limit)}
	}
	return outcome{reason: ReasonCompleted, output: true}
}
