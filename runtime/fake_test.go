package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeCRI is a CRI runtime that keeps the state of what it is asked to make,
// and makes nothing. It refuses what a real one refuses: names in use, unknown
// IDs, starting twice.
type fakeCRI struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer

	path   string
	server *grpc.Server
	served sync.WaitGroup

	// Set before start.
	version     *cri.VersionResponse
	conditions  []*cri.RuntimeCondition
	driver      cri.CgroupDriver
	handlers    []*cri.RuntimeHandler
	noEvents    bool // answer GetContainerEvents with EOF at once, as CRI-O does
	pull        func(ctx context.Context, ref string) error
	fsBytes     func() uint64
	keepsImages string // why no image can be removed

	mu         sync.Mutex
	next       int
	sandboxes  map[string]*cri.RunPodSandboxRequest
	containers map[string]*fakeContainer
	images     map[string]*cri.Image
	listeners  map[chan *cri.ContainerEventResponse]struct{}
	calls      map[string]int
	pulls      []*cri.PullImageRequest
	changed    chan struct{} // closed and replaced at each call
}

type fakeContainer struct {
	req   *cri.CreateContainerRequest
	state cri.ContainerState
	code  int32
	why   string // its reason, when it has ended
	pid   int    // told where it is asked for

	started, finished int64
}

func newFake(t testing.TB) *fakeCRI {
	t.Helper()
	return &fakeCRI{
		path:    filepath.Join(t.TempDir(), "cri.sock"),
		version: &cri.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"},
		conditions: []*cri.RuntimeCondition{
			{Type: cri.RuntimeReady, Status: true},
			{Type: cri.NetworkReady, Status: true},
			{Type: "ContainerdHasNoDeprecationWarnings", Status: false},
		},
		driver:     cri.CgroupDriver_CGROUPFS,
		handlers:   []*cri.RuntimeHandler{{Name: "", Features: &cri.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}}},
		sandboxes:  map[string]*cri.RunPodSandboxRequest{},
		containers: map[string]*fakeContainer{},
		images:     map[string]*cri.Image{},
		listeners:  map[chan *cri.ContainerEventResponse]struct{}{},
		calls:      map[string]int{},
		changed:    make(chan struct{}),
	}
}

// start serves on the fake's socket until stop or the end of the test.
func (f *fakeCRI) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.server = grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		f.count(info.FullMethod)
		return h(ctx, req)
	}), grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		f.count(info.FullMethod)
		return h(srv, ss)
	}))
	cri.RegisterRuntimeServiceServer(f.server, f)
	cri.RegisterImageServiceServer(f.server, f)
	server := f.server
	f.served.Go(func() { server.Serve(l) })
	t.Cleanup(f.stop)
}

// stop ends the server, as a crash of the runtime does; its state stays.
func (f *fakeCRI) stop() {
	f.server.Stop()
	f.served.Wait()
}

func (f *fakeCRI) count(method string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[filepath.Base(method)]++
	close(f.changed)
	f.changed = make(chan struct{})
}

// await returns when method was called n times.
func (f *fakeCRI) await(t testing.TB, method string, n int) {
	t.Helper()
	f.until(t, fmt.Sprintf("%d calls of %s", n, method), func() bool { return f.calls[method] >= n })
}

// until returns when cond, looked at under the lock after each change, holds.
func (f *fakeCRI) until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		ok, changed := cond(), f.changed
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func (f *fakeCRI) touch() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func dialFake(t testing.TB, f *fakeCRI) *Client {
	t.Helper()
	c, err := Dial(t.Context(), "unix://"+f.path, Options{CallTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (f *fakeCRI) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return f.version, nil
}

func (f *fakeCRI) Status(context.Context, *cri.StatusRequest) (*cri.StatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &cri.StatusResponse{Status: &cri.RuntimeStatus{Conditions: f.conditions}, RuntimeHandlers: f.handlers}, nil
}

func (f *fakeCRI) RuntimeConfig(context.Context, *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	return &cri.RuntimeConfigResponse{Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: f.driver}}, nil
}

func (f *fakeCRI) id(kind string) string {
	f.next++
	return fmt.Sprintf("%s%060d", kind, f.next)
}

func (f *fakeCRI) RunPodSandbox(_ context.Context, r *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := r.Config.Metadata
	for _, s := range f.sandboxes {
		if o := s.Config.Metadata; o.Name == m.Name && o.Namespace == m.Namespace && o.Uid == m.Uid && o.Attempt == m.Attempt {
			return nil, status.Errorf(codes.Unknown, "failed to reserve sandbox name %q", m.Name)
		}
	}
	id := f.id("sbox")
	f.sandboxes[id] = r
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (f *fakeCRI) PodSandboxStatus(_ context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sandboxes[r.PodSandboxId]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	out := &cri.PodSandboxStatusResponse{Status: &cri.PodSandboxStatus{
		Id: r.PodSandboxId, Metadata: s.Config.Metadata, Labels: s.Config.Labels, State: cri.PodSandboxState_SANDBOX_READY, CreatedAt: 1,
	}}
	if r.Verbose {
		out.Info = map[string]string{"info": `{"pid":42,"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/x"}]}}}`}
	}
	return out, nil
}

func (f *fakeCRI) ListPodSandbox(_ context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &cri.ListPodSandboxResponse{}
	for id, s := range f.sandboxes {
		if hasLabels(s.Config.Labels, r.Filter.LabelSelector) {
			out.Items = append(out.Items, &cri.PodSandbox{Id: id, Metadata: s.Config.Metadata, Labels: s.Config.Labels, CreatedAt: 1})
		}
	}
	return out, nil
}

func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func (f *fakeCRI) StopPodSandbox(_ context.Context, r *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.sandboxes[r.PodSandboxId]; !ok {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	for id, c := range f.containers {
		if c.req.PodSandboxId == r.PodSandboxId {
			f.endLocked(id, 137)
		}
	}
	return &cri.StopPodSandboxResponse{}, nil
}

func (f *fakeCRI) RemovePodSandbox(_ context.Context, r *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.sandboxes[r.PodSandboxId]; !ok {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	for id, c := range f.containers {
		if c.req.PodSandboxId == r.PodSandboxId {
			delete(f.containers, id)
		}
	}
	delete(f.sandboxes, r.PodSandboxId)
	return &cri.RemovePodSandboxResponse{}, nil
}

func (f *fakeCRI) CreateContainer(_ context.Context, r *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.sandboxes[r.PodSandboxId]; !ok {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	id := f.id("cont")
	f.containers[id] = &fakeContainer{req: r}
	return &cri.CreateContainerResponse{ContainerId: id}, nil
}

func (f *fakeCRI) StartContainer(_ context.Context, r *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[r.ContainerId]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	if c.state != cri.ContainerState_CONTAINER_CREATED {
		return nil, status.Error(codes.Unknown, "container was started before")
	}
	c.state = cri.ContainerState_CONTAINER_RUNNING
	return &cri.StartContainerResponse{}, nil
}

// end makes a container end by itself.
func (f *fakeCRI) end(id string, code int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked(id, code)
}

func (f *fakeCRI) endLocked(id string, code int32) {
	c := f.containers[id]
	if c.state != cri.ContainerState_CONTAINER_RUNNING {
		return
	}
	c.state, c.code = cri.ContainerState_CONTAINER_EXITED, code
	for l := range f.listeners {
		l <- &cri.ContainerEventResponse{ContainerId: id, ContainerEventType: cri.ContainerEventType_CONTAINER_STOPPED_EVENT}
	}
}

func (f *fakeCRI) StopContainer(_ context.Context, r *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.containers[r.ContainerId]; !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	f.endLocked(r.ContainerId, 143)
	return &cri.StopContainerResponse{}, nil
}

func (f *fakeCRI) RemoveContainer(_ context.Context, r *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.containers[r.ContainerId]; !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	delete(f.containers, r.ContainerId)
	return &cri.RemoveContainerResponse{}, nil
}

func (f *fakeCRI) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[r.ContainerId]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	var info map[string]string
	if r.Verbose {
		env := []string{"PKG_NAME=algorithm"} // the image's
		for _, e := range c.req.Config.Envs {
			env = append(env, e.Key+"="+string(e.Value))
		}
		text, err := json.Marshal(map[string]any{"pid": c.pid, "runtimeSpec": map[string]any{"process": map[string]any{"env": env}}})
		if err != nil {
			return nil, err
		}
		info = map[string]string{"info": string(text)}
	}
	return &cri.ContainerStatusResponse{Info: info, Status: &cri.ContainerStatus{
		Id: r.ContainerId, Metadata: c.req.Config.Metadata, State: c.state, ExitCode: c.code, Reason: c.why, Labels: c.req.Config.Labels, CreatedAt: 1,
		StartedAt: c.started, FinishedAt: c.finished, Mounts: c.req.Config.Mounts,
	}}, nil
}

func (f *fakeCRI) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &cri.ListContainersResponse{}
	for id, c := range f.containers {
		if hasLabels(c.req.Config.Labels, r.Filter.LabelSelector) {
			out.Containers = append(out.Containers, &cri.Container{Id: id, PodSandboxId: c.req.PodSandboxId, State: c.state, Labels: c.req.Config.Labels, Metadata: c.req.Config.Metadata})
		}
	}
	return out, nil
}

func (f *fakeCRI) GetContainerEvents(_ *cri.GetEventsRequest, s cri.RuntimeService_GetContainerEventsServer) error {
	if f.noEvents {
		return nil
	}
	events := make(chan *cri.ContainerEventResponse, 100)
	f.mu.Lock()
	f.listeners[events] = struct{}{}
	f.touch()
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, events)
		f.touch()
	}()
	for {
		select {
		case ev := <-events:
			if err := s.Send(ev); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (f *fakeCRI) PullImage(ctx context.Context, r *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	f.mu.Lock()
	f.pulls = append(f.pulls, r)
	f.touch()
	f.mu.Unlock()
	if f.pull != nil {
		if err := f.pull(ctx, r.Image.Image); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	img := &cri.Image{Id: "sha256:" + fmt.Sprintf("%064d", 7), RepoDigests: []string{r.Image.Image}, Size: 3}
	f.images[r.Image.Image] = img
	return &cri.PullImageResponse{ImageRef: img.Id}, nil
}

func (f *fakeCRI) ImageStatus(_ context.Context, r *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ref, img := range f.images {
		if ref == r.Image.Image || img.Id == r.Image.Image || slices.Contains(img.RepoDigests, r.Image.Image) {
			return &cri.ImageStatusResponse{Image: img}, nil
		}
	}
	return &cri.ImageStatusResponse{}, nil
}

func (f *fakeCRI) ListImages(context.Context, *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &cri.ListImagesResponse{}
	for _, img := range f.images {
		out.Images = append(out.Images, img)
	}
	return out, nil
}

func (f *fakeCRI) RemoveImage(_ context.Context, r *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keepsImages != "" {
		return nil, errors.New(f.keepsImages)
	}
	delete(f.images, r.Image.Image)
	return &cri.RemoveImageResponse{}, nil
}

func (f *fakeCRI) ImageFsInfo(context.Context, *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	var n uint64
	if f.fsBytes != nil {
		n = f.fsBytes()
	}
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{{UsedBytes: &cri.UInt64Value{Value: n}}}}, nil
}
