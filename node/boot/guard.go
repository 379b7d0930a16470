package boot

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// guarded runs what serves a node beside its own work. Serving that ends before
// it was asked to ends the node, so that nothing stops silently.
type guarded struct {
	g    errgroup.Group
	fail context.CancelCauseFunc // of the node
}

// serve runs one service until ctx ends.
func (s *guarded) serve(ctx context.Context, what string, run func(context.Context) error) {
	s.g.Go(func() error {
		err := run(ctx)
		if ctx.Err() != nil {
			return err
		}
		if err == nil {
			err = errors.New("it ended unexpectedly: report this as a defect")
		}
		err = fmt.Errorf("%s: %w", what, err)
		s.fail(err)
		return err
	})
}
