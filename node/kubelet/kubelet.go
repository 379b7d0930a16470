package kubelet

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/v6node/v6node/runtime"
)

// ErrFound means that a kubelet uses the runtime.
var ErrFound = errors.New("a kubelet uses this container runtime too, and would remove the node's sandboxes, which it does not know")

// Fix is what to do about ErrFound.
const Fix = "give v6node a runtime of its own (without runtime.endpoint and --cri-endpoint it starts one), or take this machine out of Kubernetes"

// Lister is the part of a runtime that is asked.
type Lister interface {
	ListSandboxes(ctx context.Context, labels map[string]string) ([]*runtime.Sandbox, error)
}

// Labels of pods: every kubelet sets the first ones, every v6node one with the prefix.
const (
	labelName      = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelUID       = "io.kubernetes.pod.uid"
	ownPrefix      = "ai.vantage6."
)

// Refuse returns an error that wraps ErrFound when a kubelet uses the runtime
// at the endpoint (unix:///path), which rt speaks to.
func Refuse(ctx context.Context, rt Lister, endpoint string) error {
	sign, err := Sign(ctx, rt, endpoint)
	if err != nil {
		return fmt.Errorf("find out whether a kubelet uses the container runtime: %w", err)
	}
	if sign != "" {
		return fmt.Errorf("%w (%s): %s", ErrFound, sign, Fix)
	}
	return nil
}

// Sign is what shows that a kubelet uses the runtime at the endpoint, "" when
// nothing does.
func Sign(ctx context.Context, rt Lister, endpoint string) (string, error) {
	pods, err := rt.ListSandboxes(ctx, map[string]string{})
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		if p.Ready && isKubelets(p.Labels) {
			return fmt.Sprintf("its pod %q is there", p.Labels[labelNamespace]+"/"+p.Labels[labelName]), nil
		}
	}
	return machine{root: "/", connected: connected}.process(socketPath(endpoint)), nil
}

// Left counts the pods of a kubelet that no longer run: those of one that was
// here once.
func Left(ctx context.Context, rt Lister) (int, error) {
	pods, err := rt.ListSandboxes(ctx, map[string]string{})
	n := 0
	for _, p := range pods {
		if !p.Ready && isKubelets(p.Labels) {
			n++
		}
	}
	return n, err
}

func isKubelets(labels map[string]string) bool {
	for key := range labels {
		if strings.HasPrefix(key, ownPrefix) {
			return false
		}
	}
	return labels[labelUID] != ""
}

// Configured returns the file by which a kubelet that does not run now would use
// the runtime at the endpoint, "" for none.
func Configured(endpoint string) string {
	return machine{root: "/"}.configured(socketPath(endpoint))
}

func socketPath(endpoint string) string {
	return strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
}
