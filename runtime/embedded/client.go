package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criNamespace is containerd's namespace for everything that CRI sees.
const criNamespace = "k8s.io"

// client talks to one containerd: CRI to see what it does, its own API to give
// it the pause image. It reconnects by itself.
type client struct {
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	image   cri.ImageServiceClient
}

func newClient(socket string) (*client, error) {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, runtime: cri.NewRuntimeServiceClient(conn), image: cri.NewImageServiceClient(conn)}, nil
}

func (c *client) close() error { return c.conn.Close() }

// waitReady returns when the runtime and its network are ready, or with the
// reason why they are not when ctx ends.
func (c *client) waitReady(ctx context.Context) error {
	return retry(ctx, func() error {
		r, err := c.runtime.Status(ctx, &cri.StatusRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		for _, cond := range r.GetStatus().GetConditions() {
			if (cond.Type == cri.RuntimeReady || cond.Type == cri.NetworkReady) && !cond.Status {
				return fmt.Errorf("%s is false: %s", cond.Type, cond.Message)
			}
		}
		return nil
	})
}

// retry calls fn until it succeeds or ctx ends, and then returns fn's last
// error together with ctx's.
func retry(ctx context.Context, fn func() error) error {
	delay := 2 * time.Millisecond
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(delay):
			delay = min(delay*2, 200*time.Millisecond)
		}
	}
}

// living counts the sandboxes and containers with a process. The others are
// only entries in a database, which outlive containerd anyway.
func (c *client) living(ctx context.Context) (int, error) {
	sandboxes, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return 0, err
	}
	containers, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, s := range sandboxes.GetItems() {
		if s.GetState() == cri.PodSandboxState_SANDBOX_READY {
			n++
		}
	}
	for _, ct := range containers.GetContainers() {
		if s := ct.GetState(); s == cri.ContainerState_CONTAINER_RUNNING || s == cri.ContainerState_CONTAINER_UNKNOWN {
			n++
		}
	}
	return n, nil
}

// releaseDead stops the sandboxes whose processes have ended: what they still
// hold is mounts, of their network namespace and /dev/shm.
func (c *client) releaseDead(ctx context.Context) error {
	sandboxes, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_NOTREADY}}})
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range sandboxes.GetItems() {
		if _, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.GetId()}); err != nil {
			errs = append(errs, fmt.Errorf("sandbox %s: %w", s.GetId(), err))
		}
	}
	return errors.Join(errs...)
}

// installPause makes sure that containerd has the pause image and that CRI
// knows it. Older pause images are removed; sandboxes made from one keep it
// for as long as they live.
func (c *client) installPause(ctx context.Context, p *pauseImage) error {
	if err := c.importPause(ctx, p); err != nil {
		return fmt.Errorf("cannot give containerd the pause image: %w", err)
	}
	// CRI learns of images by events.
	err := retry(ctx, func() error {
		r, err := c.image.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: p.ref()}})
		if err == nil && r.GetImage() == nil {
			err = errors.New("CRI does not know it yet")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the pause image %s was imported, but cannot be used: %w", p.ref(), err)
	}
	return nil
}

func (c *client) importPause(ctx context.Context, p *pauseImage) error {
	in := inNamespace(ctx)
	images := imagesapi.NewImagesClient(c.conn)
	list, err := images.List(in, &imagesapi.ListImagesRequest{Filters: []string{"name~=^" + pauseRepository + ":"}})
	if err != nil {
		return err
	}
	present := false
	for _, i := range list.GetImages() {
		if i.GetName() == p.ref() && i.GetTarget().GetDigest() == p.manifest.digest {
			present = true
			continue
		}
		if _, err := images.Delete(in, &imagesapi.DeleteImageRequest{Name: i.GetName()}); err != nil && status.Code(err) != codes.NotFound {
			return err
		}
	}
	if present {
		return nil
	}
	// Without a lease, containerd may collect the blobs before the image that
	// refers to them exists.
	lease, err := c.lease(ctx, "pause")
	if err != nil {
		return err
	}
	leased := metadata.AppendToOutgoingContext(in, "containerd-lease", lease)
	return errors.Join(c.writePause(leased, images, p), c.unlease(ctx, lease, false))
}

func (c *client) writePause(ctx context.Context, images imagesapi.ImagesClient, p *pauseImage) error {
	content := contentapi.NewContentClient(c.conn)
	for _, b := range []struct {
		blob
		labels map[string]string
	}{
		{p.layer, nil},
		{p.config, nil},
		// containerd keeps what these labels lead to.
		{p.manifest, map[string]string{
			"containerd.io/gc.ref.content.config": p.config.digest,
			"containerd.io/gc.ref.content.l.0":    p.layer.digest,
		}},
	} {
		if err := writeBlob(ctx, content, b.blob, b.labels); err != nil {
			return fmt.Errorf("blob %s: %w", b.digest, err)
		}
	}
	d := p.manifest.descriptor()
	_, err := images.Create(ctx, &imagesapi.CreateImageRequest{Image: &imagesapi.Image{
		Name:   p.ref(),
		Labels: map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"},
		Target: &types.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size},
	}})
	if status.Code(err) == codes.AlreadyExists {
		return nil
	}
	return err
}

// writeBlob puts a blob into the content store. containerd verifies the digest.
func writeBlob(ctx context.Context, content contentapi.ContentClient, b blob, labels map[string]string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := content.Write(ctx)
	if err != nil {
		return err
	}
	const chunk = 1 << 20
	req := contentapi.WriteContentRequest{
		Ref: "v6node-pause-" + b.digest, Total: int64(len(b.content)), Expected: b.digest, Labels: maps.Clone(labels),
	}
	rest := b.content
	for {
		req.Action, req.Data = contentapi.WriteAction_WRITE, rest[:min(chunk, len(rest))]
		if rest = rest[len(req.Data):]; len(rest) == 0 {
			req.Action = contentapi.WriteAction_COMMIT
		}
		// The stream ends with the real error where Send only says EOF.
		if err := stream.Send(&req); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		resp, err := stream.Recv()
		if status.Code(err) == codes.AlreadyExists {
			return nil
		}
		if err != nil {
			return err
		}
		if req.Action == contentapi.WriteAction_COMMIT {
			return nil
		}
		req.Offset = resp.GetOffset()
	}
}
