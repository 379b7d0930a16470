package embedded

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// leaseTime is after which containerd forgets a lease whose owner has died.
const leaseTime = time.Hour

// lease makes a lease, for which containerd keeps what is written with it.
func (c *client) lease(ctx context.Context, what string) (id string, err error) {
	lease, err := leasesapi.NewLeasesClient(c.conn).Create(inNamespace(ctx), &leasesapi.CreateRequest{
		ID:     "v6node-" + what + "-" + strings.ToLower(rand.Text()),
		Labels: map[string]string{"containerd.io/gc.expire": time.Now().Add(leaseTime).UTC().Format(time.RFC3339)},
	})
	return lease.GetLease().GetID(), err
}

// unlease ends a lease. collect waits until containerd has removed what nothing
// refers to any more, which it else does at a time of its own.
func (c *client) unlease(ctx context.Context, id string, collect bool) error {
	_, err := leasesapi.NewLeasesClient(c.conn).Delete(inNamespace(ctx), &leasesapi.DeleteRequest{ID: id, Sync: collect})
	if status.Code(err) == codes.NotFound { // it has expired
		return nil
	}
	return err
}

func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", criNamespace)
}
