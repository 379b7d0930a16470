package runtime

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateContainer changes limits of a running container: those of r that are
// not zero.
func (c *Client) UpdateContainer(ctx context.Context, id string, r Resources) error {
	op := "change the limits of the container " + short(id)
	if err := c.checkResources(op, r); err != nil {
		return err
	}
	_, err := call(ctx, c, op, c.rt.UpdateContainerResources,
		&cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: r.normal().cri()})
	return err
}
