package node

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// panicError is a defect of this program that was caught where it cannot reach
// what others are doing.
type panicError struct{ value any }

func (p *panicError) Error() string {
	return fmt.Sprintf("the node failed (%v): report this as a defect, with the node's log", p.value)
}

// safe makes of a step one whose panic is an error.
func (n *Node) safe(ctx context.Context, step func() error) func() error {
	return func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = &panicError{v}
				n.log.ErrorContext(ctx, "a defect of the node", "panic", v, "stack", string(debug.Stack()))
			}
		}()
		return step()
	}
}

// watch makes of a watch over a run one that ends the run for what it finds, and
// for a panic: nobody watches any more then.
func (n *Node) watch(ctx context.Context, end context.CancelCauseFunc, step func() error) func() error {
	return func() error {
		err := n.safe(ctx, step)()
		if failed := (*panicError)(nil); errors.As(err, &failed) {
			err = &overrun{ReasonInternal, failed.Error()}
		}
		if err != nil {
			end(err)
		}
		return nil
	}
}

// runSafely drives a run so that a panic fails this run and nothing else.
func (n *Node) runSafely(own, ctx context.Context, a *activeRun, drive driver) {
	err := n.safe(ctx, func() error { drive(own, ctx, a); return nil })()
	if err == nil {
		return
	}
	if err := n.safe(ctx, func() error { n.conclude(own, ctx, a, nil, err); return nil })(); err != nil {
		n.log.ErrorContext(own, "a run is left for the next start", "run", a.id, "error", err)
	}
}
