package runtime

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SandboxSpec describes the sandbox of one run. Name, Namespace, UID and
// Attempt together are reserved while such a sandbox lives: raise Attempt to
// make another.
type SandboxSpec struct {
	Name, Namespace, UID string
	Attempt              uint32
	Hostname             string
	Labels, Annotations  map[string]string
	LogDirectory         string // absolute; the runtime creates it
	CgroupParent         string // from Cgroup.Parent
	RuntimeHandler       string // "" is the runtime's default
	Resources            Resources
	Users                *IDMap // nil: the machine's user namespace
}

// Sandbox is what the runtime tells about one.
type Sandbox struct {
	ID, Name, Namespace, UID string
	Attempt                  uint32
	Ready                    bool
	CreatedAt                time.Time
	Labels, Annotations      map[string]string
	Handler                  string

	NetNS string // path of the network namespace; only from SandboxStatus
	PID   int    // of the pause process, 0 if there is none; only from SandboxStatus
}

// Labels by which crictl, and whatever else was made for kubelets, names the
// columns of its listings.
const (
	labelPodName       = "io.kubernetes.pod.name"
	labelPodNamespace  = "io.kubernetes.pod.namespace"
	labelPodUID        = "io.kubernetes.pod.uid"
	labelContainerName = "io.kubernetes.container.name"
)

func (s *SandboxSpec) labels(own map[string]string) map[string]string {
	all := make(map[string]string, len(own)+4)
	maps.Copy(all, own)
	all[labelPodName], all[labelPodNamespace], all[labelPodUID] = s.Name, s.Namespace, s.UID
	return all
}

func (c *Client) sandboxConfig(s *SandboxSpec) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: s.Name, Namespace: s.Namespace, Uid: s.UID, Attempt: s.Attempt},
		Hostname:     s.Hostname,
		LogDirectory: s.LogDirectory,
		// Without a DNS configuration both runtimes copy the host's
		// resolv.conf into the sandbox, CRI-O even when it is there but empty.
		// There is no name server in a sandbox: let look-ups fail at once.
		DnsConfig:   &cri.DNSConfig{Options: []string{"timeout:1", "attempts:1"}},
		Labels:      s.labels(s.Labels),
		Annotations: s.Annotations,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    s.CgroupParent,
			SecurityContext: c.sandboxSecurity(s.Users),
			Resources:       s.Resources.cri(),
		},
	}
}

func (c *Client) checkSandbox(op string, s *SandboxSpec) error {
	switch {
	case s.Name == "" || s.Namespace == "" || s.UID == "":
		return invalid(op, "its name, namespace and UID must not be empty")
	case len(s.Hostname) > 63:
		return invalid(op, "the host name %q is longer than 63 bytes", s.Hostname)
	case s.LogDirectory == "" || s.LogDirectory[0] != '/':
		return invalid(op, "the log directory %q is not an absolute path", s.LogDirectory)
	}
	if err := checkCgroupParent(op, c.info.Load().CgroupDriver, s.CgroupParent); err != nil {
		return err
	}
	return c.checkResources(op, s.Resources)
}

// RunSandbox creates and starts a sandbox. After an error nothing has to be
// removed, unless the error is that of a context or ErrNotReady: then the
// sandbox may exist, and ListSandboxes finds it by its labels.
func (c *Client) RunSandbox(ctx context.Context, s *SandboxSpec) (id string, err error) {
	op := "start the sandbox " + s.Name
	if err := c.checkSandbox(op, s); err != nil {
		return "", err
	}
	r, err := callOnce(ctx, c, op, c.rt.RunPodSandbox, &cri.RunPodSandboxRequest{
		Config:         c.sandboxConfig(s),
		RuntimeHandler: s.RuntimeHandler,
	})
	if err != nil {
		return "", err
	}
	return r.PodSandboxId, nil
}

// SandboxStatus returns the sandbox with its network namespace and the PID of
// its pause process. ErrNotFound if it does not exist.
func (c *Client) SandboxStatus(ctx context.Context, id string) (*Sandbox, error) {
	op := "read the state of the sandbox " + short(id)
	r, err := call(ctx, c, op, c.rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, err
	}
	st := r.GetStatus()
	if st == nil {
		return nil, &Error{Op: op, Kind: ErrNotCRI, text: "the runtime's answer has no status"}
	}
	s := &Sandbox{
		ID:          st.Id,
		Name:        st.GetMetadata().GetName(),
		Namespace:   st.GetMetadata().GetNamespace(),
		UID:         st.GetMetadata().GetUid(),
		Attempt:     st.GetMetadata().GetAttempt(),
		Ready:       st.State == cri.PodSandboxState_SANDBOX_READY,
		CreatedAt:   nanoTime(st.CreatedAt),
		Labels:      st.Labels,
		Annotations: st.Annotations,
		Handler:     st.RuntimeHandler,
	}
	// containerd and CRI-O use the same form here, although CRI leaves it open.
	var info struct {
		PID         int        `json:"pid"`
		RuntimeSpec specs.Spec `json:"runtimeSpec"`
	}
	if text := r.GetInfo()["info"]; text != "" {
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			return nil, &Error{Op: op, Cause: err, text: "the runtime's verbose answer is not understood (" + oneLine(err.Error()) + ")"}
		}
	}
	s.PID = info.PID
	if info.RuntimeSpec.Linux != nil {
		for _, ns := range info.RuntimeSpec.Linux.Namespaces {
			if ns.Type == specs.NetworkNamespace {
				s.NetNS = ns.Path
			}
		}
	}
	return s, nil
}

// ListSandboxes returns the sandboxes that have all the labels, living or not.
func (c *Client) ListSandboxes(ctx context.Context, labels map[string]string) ([]*Sandbox, error) {
	r, err := call(ctx, c, "list the sandboxes", c.rt.ListPodSandbox, &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{LabelSelector: labels},
	})
	if err != nil {
		return nil, err
	}
	all := make([]*Sandbox, 0, len(r.Items))
	for _, p := range r.Items {
		all = append(all, &Sandbox{
			ID:          p.Id,
			Name:        p.GetMetadata().GetName(),
			Namespace:   p.GetMetadata().GetNamespace(),
			UID:         p.GetMetadata().GetUid(),
			Attempt:     p.GetMetadata().GetAttempt(),
			Ready:       p.State == cri.PodSandboxState_SANDBOX_READY,
			CreatedAt:   nanoTime(p.CreatedAt),
			Labels:      p.Labels,
			Annotations: p.Annotations,
			Handler:     p.RuntimeHandler,
		})
	}
	return all, nil
}

// StopSandbox kills all containers of the sandbox and takes down its network.
// A sandbox that is stopped already, or gone, is no error.
func (c *Client) StopSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, c, "stop the sandbox "+short(id), c.rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: id})
	return unlessGone(err)
}

// RemoveSandbox removes the sandbox and its containers, stopping what still
// runs. A sandbox that is gone is no error.
func (c *Client) RemoveSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, c, "remove the sandbox "+short(id), c.rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	return unlessGone(err)
}

// nanoTime turns CRI's nanoseconds into a time; 0 means never.
func nanoTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// short is an ID as crictl prints it.
func short(id string) string {
	if len(id) > 13 {
		id = id[:13]
	}
	return oneLine(id)
}
