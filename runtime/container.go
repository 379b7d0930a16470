package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Mount is a bind mount of the host into a container. A read-only one is
// recursively so where the runtime handler can do that.
type Mount struct {
	HostPath, ContainerPath string
	ReadOnly                bool
}

// EnvVar is one environment variable.
type EnvVar struct{ Name, Value string }

// ContainerSpec describes a container of a run. What it may do is not part of
// it: no capability, no new privileges, a read-only root file system, the
// runtime's default seccomp (and AppArmor) profile and no terminal, always.
type ContainerSpec struct {
	Name                string
	Attempt             uint32
	Image               string // name@sha256:... or an image ID: never a tag
	Command, Args       []string
	Env                 []EnvVar
	WorkingDir          string
	Mounts              []Mount
	LogPath             string // relative to SandboxSpec.LogDirectory
	Labels, Annotations map[string]string
	Resources           Resources // PidsLimit has no effect here, see Cgroup
	RunAsUser           *int64    // nil is the image's user
	// Devices are CDI names such as nvidia.com/gpu=0. What they add to the
	// container is what the machine's CDI files say.
	Devices []string
}

// cdiName is vendor/class=device, as the Container Device Interface has it.
var cdiName = regexp.MustCompile(`\A[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+=[A-Za-z0-9_.:-]+\z`)

// State of a container.
type State string

// The states that CRI knows. StateUnknown means that the runtime has lost it,
// for example because its shim died; StopContainer then cleans up.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StateExited  State = "exited"
	StateUnknown State = "unknown"
)

// Container is what the runtime tells about one.
type Container struct {
	ID, SandboxID, Name, Image, ImageRef string
	State                                State
	CreatedAt, StartedAt, FinishedAt     time.Time
	ExitCode                             int // when exited
	// Reason is the runtime's one word for the end ("Completed", "Error",
	// "OOMKilled"). It is not reliable for OOM: see Cgroup.OOMKills.
	Reason, Message, LogPath string
	Labels, Annotations      map[string]string
	PID                      int // of a running container; only from ContainerStatus
	// Rlimits are the resource limits with which the runtime starts the
	// container's process; only from ContainerStatus. What is not among them
	// is inherited from the runtime.
	Rlimits []Rlimit
	// Mounts are those of the ContainerSpec, and of the devices where the runtime tells them, and EnvNames the names of
	// all variables that the process starts with, sorted; only from ContainerStatus.
	Mounts   []Mount
	EnvNames []string
}

func (c *Client) checkContainer(op string, s *ContainerSpec) error {
	switch {
	case s.Name == "":
		return invalid(op, "its name must not be empty")
	case !isPinned(s.Image):
		return invalid(op, "the image %q is not pinned by a digest; resolve it to name@sha256:... first", s.Image)
	case s.LogPath == "" || !filepath.IsLocal(s.LogPath):
		return invalid(op, "the log path %q is not a path below the sandbox's log directory", s.LogPath)
	case s.RunAsUser != nil && (*s.RunAsUser < 0 || *s.RunAsUser > math.MaxInt32):
		return invalid(op, "the user ID %d is not within 0..2147483647", *s.RunAsUser)
	case slices.ContainsFunc(s.Devices, func(d string) bool { return !cdiName.MatchString(d) }):
		return invalid(op, "one of the devices %q has no CDI name such as nvidia.com/gpu=0", s.Devices)
	case len(s.Devices) > 0 && !c.info.Load().CDI:
		// It would take no notice, and start the container without them.
		return &Error{Op: op, Kind: ErrInvalid,
			text: fmt.Sprintf("the devices %q were asked for, but the runtime gives no devices by CDI; use containerd 1.7 or newer with enable_cdi = true, or CRI-O", s.Devices)}
	case s.WorkingDir != "" && !path.IsAbs(s.WorkingDir):
		return invalid(op, "the working directory %q is not an absolute path", s.WorkingDir)
	}
	for _, e := range s.Env {
		// The value may be a secret: it is not part of the error.
		if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") || strings.ContainsRune(e.Value, 0) {
			return invalid(op, "the environment variable %q has an empty name, or a zero byte or = where none may be", e.Name)
		}
	}
	seen := map[string]bool{}
	for _, m := range s.Mounts {
		at := path.Clean(m.ContainerPath)
		switch {
		case !filepath.IsAbs(m.HostPath) || !path.IsAbs(m.ContainerPath):
			return invalid(op, "the mount of %q at %q does not have two absolute paths", m.HostPath, m.ContainerPath)
		case at == "/":
			return invalid(op, "the mount of %q would hide the image", m.HostPath)
		case seen[at]:
			return invalid(op, "two mounts have the same place, %q", at)
		}
		seen[at] = true
	}
	return c.checkResources(op, s.Resources)
}

func (c *Client) containerConfig(s *ContainerSpec, sandbox *SandboxSpec) *cri.ContainerConfig {
	labels := sandbox.labels(s.Labels)
	labels[labelContainerName] = s.Name
	config := &cri.ContainerConfig{
		Metadata:    &cri.ContainerMetadata{Name: s.Name, Attempt: s.Attempt},
		Image:       &cri.ImageSpec{Image: stored(s.Image), UserSpecifiedImage: s.Image, RuntimeHandler: sandbox.RuntimeHandler},
		Command:     s.Command,
		Args:        s.Args,
		WorkingDir:  s.WorkingDir,
		Labels:      labels,
		Annotations: s.Annotations,
		LogPath:     s.LogPath,
		// A terminal would merge stderr into stdout.
		Tty:   false,
		Stdin: false,
		Linux: &cri.LinuxContainerConfig{
			Resources:       s.Resources.cri(),
			SecurityContext: c.containerSecurity(s.RunAsUser, sandbox.Users),
		},
	}
	for _, e := range s.Env {
		config.Envs = append(config.Envs, &cri.KeyValue{Key: e.Name, Value: []byte(e.Value)})
	}
	for _, d := range s.Devices {
		config.CDIDevices = append(config.CDIDevices, &cri.CDIDevice{Name: d})
	}
	recursive := c.info.Load().RecursiveReadOnly(sandbox.RuntimeHandler)
	for _, m := range s.Mounts {
		config.Mounts = append(config.Mounts, &cri.Mount{
			HostPath:          m.HostPath,
			ContainerPath:     m.ContainerPath,
			Readonly:          m.ReadOnly,
			RecursiveReadOnly: m.ReadOnly && recursive,
			Propagation:       cri.MountPropagation_PROPAGATION_PRIVATE,
			UidMappings:       sandbox.Users.mappings(),
			GidMappings:       sandbox.Users.mappings(),
		})
	}
	return config
}

// CreateContainer creates a container in the sandbox that was made from the
// given SandboxSpec. The image must be in the runtime's store already.
func (c *Client) CreateContainer(ctx context.Context, sandboxID string, s *ContainerSpec, sandbox *SandboxSpec) (id string, err error) {
	op := "create the container " + s.Name + " in " + sandbox.Name
	if err := c.checkContainer(op, s); err != nil {
		return "", err
	}
	r, err := callOnce(ctx, c, op, c.rt.CreateContainer, &cri.CreateContainerRequest{
		PodSandboxId:  sandboxID,
		Config:        c.containerConfig(s, sandbox),
		SandboxConfig: c.sandboxConfig(sandbox),
	})
	if err != nil {
		return "", startError(err)
	}
	return r.ContainerId, nil
}

// StartContainer starts a created container. A container starts once.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	_, err := callOnce(ctx, c, "start the container "+short(id), c.rt.StartContainer, &cri.StartContainerRequest{ContainerId: id})
	return startError(err)
}

// startError recognises a program for another architecture.
func startError(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Kind == nil && strings.Contains(e.Error(), "exec format error") {
		e.Kind = ErrWrongPlatform
		e.text = "the image's program is not made for this machine's architecture; build the image for it"
	}
	return err
}

// StopContainer ends a container: the image's stop signal (SIGTERM if it names
// none), then SIGKILL after grace, rounded up to a whole second; at once with a
// grace of 0. It returns when the container has ended. One that has ended
// already, or is gone, is no error.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	grace = max(grace, 0)
	seconds := int64((grace + time.Second - 1) / time.Second)
	_, err := callFor(ctx, c, "stop the container "+short(id), c.timeout+time.Duration(seconds)*time.Second,
		c.rt.StopContainer, &cri.StopContainerRequest{ContainerId: id, Timeout: seconds})
	return unlessGone(err)
}

// RemoveContainer removes a container, killing it if it runs. One that is gone
// is no error. Its log file stays.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	_, err := call(ctx, c, "remove the container "+short(id), c.rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: id})
	return unlessGone(err)
}

// ContainerStatus returns the container with its PID. ErrNotFound if it does
// not exist.
func (c *Client) ContainerStatus(ctx context.Context, id string) (*Container, error) {
	return c.containerStatus(ctx, id, true)
}

// containerStatus asks verbosely only for the PID: the runtime then writes out
// its whole configuration of the container.
func (c *Client) containerStatus(ctx context.Context, id string, verbose bool) (*Container, error) {
	op := "read the state of the container " + short(id)
	r, err := call(ctx, c, op, c.rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: id, Verbose: verbose})
	if err != nil {
		return nil, err
	}
	st := r.GetStatus()
	if st == nil {
		return nil, &Error{Op: op, Kind: ErrNotCRI, text: "the runtime's answer has no status"}
	}
	// Only the verbose answer names the sandbox, and each runtime in its own way.
	var info struct {
		SandboxID string `json:"sandboxID"`
		PID       int    `json:"pid"`
		Spec      struct {
			Process struct {
				Rlimits []Rlimit `json:"rlimits"`
				Env     []string `json:"env"`
			} `json:"process"`
		} `json:"runtimeSpec"`
	}
	if text := r.GetInfo()["info"]; text != "" {
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			return nil, &Error{Op: op, Cause: err, text: "the runtime's verbose answer is not understood (" + oneLine(err.Error()) + ")"}
		}
	}
	var mounts []Mount
	for _, m := range st.GetMounts() {
		mounts = append(mounts, Mount{HostPath: m.GetHostPath(), ContainerPath: m.GetContainerPath(), ReadOnly: m.GetReadonly()})
	}
	started, finished := nanoTime(st.StartedAt), nanoTime(st.FinishedAt)
	if !finished.IsZero() && started.After(finished) {
		// containerd takes the time of the start when its call of the shim has
		// returned; a program of a millisecond has ended before.
		started = finished
	}
	return &Container{
		ID:          st.Id,
		SandboxID:   info.SandboxID,
		Name:        st.GetMetadata().GetName(),
		Image:       st.GetImage().GetImage(),
		ImageRef:    st.ImageRef,
		State:       stateOf(st.State),
		CreatedAt:   nanoTime(st.CreatedAt),
		StartedAt:   started,
		FinishedAt:  finished,
		ExitCode:    int(st.ExitCode),
		Reason:      oneLine(st.Reason),
		Message:     oneLine(st.Message),
		LogPath:     st.LogPath,
		Labels:      st.Labels,
		Annotations: st.Annotations,
		PID:         info.PID,
		Rlimits:     info.Spec.Process.Rlimits,
		Mounts:      mounts,
		EnvNames:    envNames(info.Spec.Process.Env),
	}, nil
}

// envNames are the names in an environment, whose values are nobody's business.
func envNames(env []string) []string {
	var names []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ListContainers returns the containers that have all the labels, in every
// state. Times other than CreatedAt, exit code, reason, log path and PID are
// not part of a listing.
func (c *Client) ListContainers(ctx context.Context, labels map[string]string) ([]*Container, error) {
	r, err := call(ctx, c, "list the containers", c.rt.ListContainers, &cri.ListContainersRequest{
		Filter: &cri.ContainerFilter{LabelSelector: labels},
	})
	if err != nil {
		return nil, err
	}
	all := make([]*Container, 0, len(r.Containers))
	for _, k := range r.Containers {
		all = append(all, &Container{
			ID:          k.Id,
			SandboxID:   k.PodSandboxId,
			Name:        k.GetMetadata().GetName(),
			Image:       k.GetImage().GetImage(),
			ImageRef:    k.ImageRef,
			State:       stateOf(k.State),
			CreatedAt:   nanoTime(k.CreatedAt),
			Labels:      k.Labels,
			Annotations: k.Annotations,
		})
	}
	return all, nil
}

func stateOf(s cri.ContainerState) State {
	switch s {
	case cri.ContainerState_CONTAINER_CREATED:
		return StateCreated
	case cri.ContainerState_CONTAINER_RUNNING:
		return StateRunning
	case cri.ContainerState_CONTAINER_EXITED:
		return StateExited
	}
	return StateUnknown
}

// unlessGone makes the removal of what does not exist a success.
func unlessGone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// ReopenLog makes the runtime write the container's log to a new file at its
// path, after the old one was renamed. It fails with ErrNotFound for a container
// that has ended.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	op := "reopen the log of the container " + short(id)
	_, err := call(ctx, c, op, c.rt.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: id})
	if err == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	if st, statusErr := c.containerStatus(ctx, id, false); statusErr == nil && st.State == StateExited {
		return &Error{Op: op, Kind: ErrNotFound, Cause: err, text: "it has ended"}
	}
	return err
}
