package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// namespaces lists where the network namespaces of this containerd's sandboxes
// are mounted.
func (l *layout) namespaces() ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(l.state, "io.containerd.grpc.v1.cri", "netns")))
	if err != nil {
		return nil, fmt.Errorf("look for network namespaces: %w", err)
	}
	var out []string
	for _, m := range mounts {
		out = append(out, m.Mountpoint)
	}
	return out, nil
}

// removeStrays removes those of the network namespaces that no sandbox of a new
// containerd has: the one before it died when it had made them and not yet said
// so anywhere. One that stays does no harm but to be there.
func (d *Containerd) removeStrays(ctx context.Context, before []string) {
	if len(before) == 0 {
		return
	}
	known, err := d.client.namespaces(ctx)
	if err != nil {
		d.cfg.Log.WarnContext(ctx, "containerd does not tell the network namespaces of its sandboxes; those that belong to none stay", slog.Any("error", err))
		return
	}
	for _, path := range before {
		if slices.Contains(known, path) {
			continue
		}
		err := unix.Unmount(path, unix.MNT_DETACH)
		if err == nil || errors.Is(err, unix.EINVAL) {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.cfg.Log.WarnContext(ctx, "a network namespace that belongs to no sandbox cannot be removed", slog.String("path", path), slog.Any("error", err))
			continue
		}
		d.cfg.Log.WarnContext(ctx, "a network namespace that belonged to no sandbox was removed", slog.String("path", path))
	}
}

// namespaces are the paths of all sandboxes' network namespaces, living or not.
// Those that were killed when they began have got none that anybody needs.
func (c *client) namespaces(ctx context.Context) ([]string, error) {
	r, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range r.GetItems() {
		st, err := c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.GetId(), Verbose: true})
		if err != nil {
			return nil, fmt.Errorf("sandbox %s: %w", s.GetId(), err)
		}
		var info struct {
			RuntimeSpec *specs.Spec `json:"runtimeSpec"`
		}
		if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &info); err != nil {
			return nil, fmt.Errorf("sandbox %s: %w", s.GetId(), err)
		}
		if info.RuntimeSpec == nil || info.RuntimeSpec.Linux == nil {
			if s.GetState() == cri.PodSandboxState_SANDBOX_NOTREADY {
				continue
			}
			return nil, fmt.Errorf("sandbox %s does not say which one it has", s.GetId())
		}
		for _, ns := range info.RuntimeSpec.Linux.Namespaces {
			if ns.Type == specs.NetworkNamespace {
				out = append(out, ns.Path)
			}
		}
	}
	return out, nil
}
