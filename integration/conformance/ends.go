package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/v6node/v6node/runtime"
)

func endBehaviours() []behaviour {
	return []behaviour{
		{"end", "an ended container reports its exit code and times", func(ctx context.Context, b *bench) error {
			for _, code := range []int{0, 7} {
				a, err := b.run(ctx, args("exit", fmt.Sprint(code)))
				if err != nil {
					return err
				}
				st, err := a.end(ctx)
				if err != nil {
					return err
				}
				if st.State != runtime.StateExited || st.ExitCode != code || st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt) {
					return fmt.Errorf("after the exit with %d it reports %+v", code, st)
				}
			}
			return nil
		}},
		{"end", "a container is asked to end with SIGTERM", func(ctx context.Context, b *bench) error {
			return b.stopped(ctx, "wait", 30*time.Second, 3)
		}},
		{"end", "a container that ignores SIGTERM is killed after the grace", func(ctx context.Context, b *bench) error {
			began := time.Now()
			if err := b.stopped(ctx, "stubborn", time.Second, 137); err != nil {
				return err
			}
			if d := time.Since(began); d < time.Second {
				return fmt.Errorf("it was killed after %s, before its grace of a second was over", d)
			}
			return nil
		}},
		{"end", "the runtime's events tell of an end", func(ctx context.Context, b *bench) error {
			if !b.rt.SendsEvents(ctx) {
				return skipped("the runtime sends no events, so the node finds ends by a listing every second (CRI-O: enable_pod_events = true)")
			}
			return toldByEvent(ctx, b)
		}},
	}
}

// toldByEvent waits for an end with a watcher that never lists.
func toldByEvent(ctx context.Context, b *bench) error {
	const never = 24 * time.Hour
	watcher := runtime.NewWatcher(b.rt, b.labels(), runtime.WatchOptions{RelistMin: never, RelistMax: never})
	own, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { _ = watcher.Run(own) }) // its end is ours
	a, err := b.run(ctx, args("wait"))
	if err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	told := make(chan error, 1)
	wg.Go(func() {
		_, err := watcher.Wait(own, a.containerID)
		told <- err
	})
	if err := b.rt.StopContainer(ctx, a.containerID, time.Minute); err != nil {
		return err
	}
	select {
	case err := <-told:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("the container's end was not told within 20 s")
	}
}

// stopped stops a waiting container, twice, and compares its exit code.
func (b *bench) stopped(ctx context.Context, how string, grace time.Duration, code int) error {
	a, err := b.run(ctx, args(how))
	if err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	for range 2 {
		if err := b.rt.StopContainer(ctx, a.containerID, grace); err != nil {
			return err
		}
	}
	st, err := a.end(ctx)
	if err == nil && st.ExitCode != code {
		err = fmt.Errorf("it ended with %d (%s), expected %d", st.ExitCode, st.Reason, code)
	}
	return err
}
