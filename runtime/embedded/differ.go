package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"sync"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/contrib/diffservice"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
)

// differName is what containerd calls the plugin by which layers are unpacked
// where only one user id is mapped. Its own gives each file to the owner that the
// layer names, and fails where there is no such user.
const differName = "v6node"

// differ is that plugin: a server on a socket that containerd asks to unpack a
// layer. All files become this user's. The node serves it, so that containerd
// pulls no image while no node runs.
type differ struct {
	server *grpc.Server
	ended  sync.WaitGroup
}

// serveDiffer listens on a socket that belongs to us alone. What fails later is
// told to whoever pulls.
func serveDiffer(ctx context.Context, socket string, c *client) (*differ, error) {
	// Of a node that was killed; the lock on the directory is ours.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	d := &differ{server: grpc.NewServer()}
	layers := contentproxy.NewContentStore(contentapi.NewContentClient(c.conn))
	diffapi.RegisterDiffServer(d.server, diffservice.FromApplierAndComparer(ownerless{layers}, nil))
	d.ended.Go(func() { _ = d.server.Serve(l) }) // ends by close alone
	return d, nil
}

// close cuts what is being unpacked, and removes the socket.
func (d *differ) close() {
	if d == nil {
		return
	}
	d.server.Stop()
	d.ended.Wait()
}

// ownerless unpacks layers without the owners that they name.
type ownerless struct{ layers content.Provider }

// Apply implements diff.Applier.
func (o ownerless) Apply(ctx context.Context, layer ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (applied ocispec.Descriptor, err error) {
	var config diff.ApplyConfig
	for _, opt := range opts {
		if err := opt(ctx, layer, &config); err != nil {
			return applied, err
		}
	}
	ctx = namespaces.WithNamespace(ctx, criNamespace)
	stored, err := o.layers.ReaderAt(ctx, layer)
	if err != nil {
		return applied, fmt.Errorf("read the layer %s: %w", layer.Digest, err)
	}
	defer func() { err = errors.Join(err, stored.Close()) }()
	stream := diff.NewProcessorChain(layer.MediaType, io.NewSectionReader(stored, 0, stored.Size()))
	for {
		next, nextErr := diff.GetProcessor(ctx, stream, config.ProcessorPayloads)
		if nextErr != nil {
			return applied, fmt.Errorf("layer %s (%s): %w", layer.Digest, layer.MediaType, nextErr)
		}
		defer func() { err = errors.Join(err, next.Close()) }()
		stream = next
		if stream.MediaType() == ocispec.MediaTypeImageLayer {
			break
		}
	}
	// containerd compares the sum with the one that the image names.
	sum := digest.Canonical.Digester()
	counted := &counter{r: io.TeeReader(stream, sum.Hash())}
	if err := mount.WithTempMount(ctx, mounts, func(root string) error {
		_, err := archive.Apply(ctx, root, counted, archive.WithNoSameOwner())
		return err
	}); err != nil {
		return applied, fmt.Errorf("unpack the layer %s: %w", layer.Digest, err)
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return applied, fmt.Errorf("read the layer %s: %w", layer.Digest, err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum.Digest(), Size: counted.n}, nil
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// platform of the images that are unpacked, as containerd writes it.
func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }
