package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func restartBehaviours() []behaviour {
	return []behaviour{
		{"restart", "a container and whoever waits for it outlive a restart of the runtime", func(ctx context.Context, b *bench) error {
			if b.o.Restart == nil {
				return skipped("the runtime is not ours to restart")
			}
			return outlived(ctx, b)
		}},
	}
}

func outlived(ctx context.Context, b *bench) error {
	a, err := b.run(ctx, args("tick"))
	if err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		st, err := a.end(ctx)
		if err == nil && st.ExitCode != 0 {
			err = fmt.Errorf("it ended with %d (%s)", st.ExitCode, st.Reason)
		}
		ended <- err
	}()
	if err := b.o.Restart(ctx); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return errors.Join(errors.New("the container ended with the runtime"), err)
	default:
	}
	// This call waits for the runtime.
	if err := b.rt.StopContainer(ctx, a.containerID, time.Minute); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return err
	}
	out, err := a.output("stdout")
	if err == nil && len(out) < 4 || out[len(out)-4:] != "end\n" {
		err = errors.Join(errors.New("the log does not go to the container's end"), err)
	}
	return err
}
