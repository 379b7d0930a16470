package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Shed removes layers, by digest, from containerd's content store. Their images
// stay usable, for containers are made of what the layers were unpacked to; only
// an image whose snapshots were lost has to be pulled again. Meant for images
// that are as large again in the store, and can be had again from this machine.
// A layer that is not there is no error.
func (d *Containerd) Shed(ctx context.Context, layers []string) error {
	if err := d.client.shed(ctx, layers); err != nil {
		return fmt.Errorf("remove layers from the content store of the node's own containerd: %w", err)
	}
	return nil
}

func (c *client) shed(ctx context.Context, layers []string) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", criNamespace)
	content, leases := contentapi.NewContentClient(c.conn), leasesapi.NewLeasesClient(c.conn)
	var errs []error
	for _, l := range layers {
		if _, err := content.Delete(ctx, &contentapi.DeleteContentRequest{Digest: l}); err != nil && status.Code(err) != codes.NotFound {
			errs = append(errs, fmt.Errorf("layer %s: %w", l, err))
		}
	}
	// The files go with the next collection, which may be far off. The end of a
	// lease, even of an empty one, can ask for one and wait for it.
	lease, err := leases.Create(ctx, &leasesapi.CreateRequest{
		ID:     "v6node-shed-" + strings.ToLower(rand.Text()),
		Labels: map[string]string{"containerd.io/gc.expire": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
	})
	if err == nil {
		_, err = leases.Delete(ctx, &leasesapi.DeleteRequest{ID: lease.GetLease().GetID(), Sync: true})
	}
	return errors.Join(append(errs, err)...)
}
