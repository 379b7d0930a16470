package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// bare times RunPodSandbox, CreateContainer and StartContainer of the same
// image by direct calls, with no part of v6node between: what no node can beat.
func (b *bench) bare(ctx context.Context, w *world) (time.Duration, error) {
	conn, err := grpc.NewClient(w.cri, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	client := cri.NewRuntimeServiceClient(conn)
	logs := filepath.Join(b.dir, "bare-logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return 0, err
	}
	var starts, sandboxes []time.Duration
	for i := range b.times(20) {
		took, sandbox, err := bareRun(ctx, client, w.image.Pinned, logs, i)
		if err != nil {
			return 0, err
		}
		starts, sandboxes = append(starts, took), append(sandboxes, sandbox)
	}
	b.seconds("a", "bare CRI, RunPodSandbox alone", sandboxes)
	return b.seconds("a", "bare CRI, RunPodSandbox + CreateContainer + StartContainer", starts), nil
}

func bareRun(ctx context.Context, client cri.RuntimeServiceClient, image, logs string, i int) (whole, sandbox time.Duration, err error) {
	name := fmt.Sprintf("bare-%d", i)
	runtimeDefault := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	pod := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name}, Hostname: name, LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/v6node-bench/" + name,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}, Seccomp: runtimeDefault, ReadonlyRootfs: true,
			},
		},
	}
	began := time.Now()
	sb, err := client.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return 0, 0, err
	}
	sandbox = time.Since(began)
	defer func() {
		if _, stopErr := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sb.PodSandboxId}); err == nil {
			err = stopErr
		}
		if _, rmErr := client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sb.PodSandboxId}); err == nil {
			err = rmErr
		}
		if rmErr := removeGroups("v6node-bench/" + name); err == nil {
			err = rmErr
		}
	}()
	created, err := client.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: sb.PodSandboxId, SandboxConfig: pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: image}, LogPath: name + ".log",
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}, Seccomp: runtimeDefault, ReadonlyRootfs: true,
				Capabilities: &cri.Capability{DropCapabilities: []string{"ALL"}}, NoNewPrivs: true,
			}},
		},
	})
	if err != nil {
		return 0, 0, err
	}
	if _, err := client.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return 0, 0, err
	}
	return time.Since(began), sandbox, nil
}

// removeGroups removes the cgroups of a bare run and their parent when it is
// empty: nobody else does.
func removeGroups(path string) error {
	for _, root := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		dirs, err := filepath.Glob(root + path)
		if err != nil {
			return err
		}
		for _, d := range dirs {
			if err := os.Remove(d); err != nil {
				return err
			}
			_ = os.Remove(filepath.Dir(d)) // goes with the last of them
		}
	}
	return nil
}
