package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/v6node/v6node/runtime"
)

func limitBehaviours() []behaviour {
	return []behaviour{
		{"limits", "limits are in force for the container's process", func(ctx context.Context, b *bench) error {
			adj := int64(500)
			r := runtime.Resources{MemoryLimit: 256 << 20, CPUQuota: 50_000, CPUPeriod: 100_000, CPUShares: 512, PidsLimit: 64, CpusetCpus: "0", OOMScoreAdj: &adj}
			return b.limited(ctx, r)
		}},
		{"limits", "the least memory limit that the runtime takes is in force", func(ctx context.Context, b *bench) error {
			least := b.rt.Info().MinMemory
			if least == 0 {
				return skipped("the runtime has no least memory limit")
			}
			_, err := b.run(ctx, order{args: []string{"exit", "0"}, resources: runtime.Resources{MemoryLimit: least - 1<<20}})
			if !errors.Is(err, runtime.ErrLimit) || !strings.Contains(err.Error(), "at least") {
				return fmt.Errorf("less than %d bytes of memory: %w", least, err)
			}
			return nil
		}},
		{"limits", "memory beyond the limit kills, and is counted", func(ctx context.Context, b *bench) error {
			a, st, err := b.overrun(ctx, "oom")
			if err != nil {
				return err
			}
			// Without CAP_SYS_RESOURCE CRI-O's monitor is not protected, and may go too.
			if st.ExitCode != 137 && st.State != runtime.StateUnknown {
				return fmt.Errorf("it ended with %d (%s), expected 137", st.ExitCode, st.Reason)
			}
			peak, err := a.group.PeakMemory()
			if err == nil && peak < 60<<20 {
				err = fmt.Errorf("the peak is %d bytes only", peak)
			}
			return err
		}},
		{"limits", "a child that is killed for want of memory is counted, whatever the exit code", func(ctx context.Context, b *bench) error {
			_, st, err := b.overrun(ctx, "oom-child")
			// Where memory stays short the kernel takes the parent as well.
			if err == nil && st.ExitCode != 5 && st.ExitCode != 137 && st.State != runtime.StateUnknown {
				err = fmt.Errorf("it ended with %d (%s), expected 5", st.ExitCode, st.Reason)
			}
			return err
		}},
		{"limits", "no more processes are started than allowed", func(ctx context.Context, b *bench) error {
			const limit = 40
			out, _, err := b.finish(ctx, order{args: []string{"children", "200"}, resources: runtime.Resources{PidsLimit: limit}})
			if err != nil {
				return err
			}
			var n int
			if _, err := fmt.Sscan(out, &n); err != nil || n >= limit || !strings.Contains(out, "temporarily unavailable") {
				return fmt.Errorf("with a limit of %d it says %q", limit, out)
			}
			return nil
		}},
		{"limits", "the limits of a running container can be changed", func(ctx context.Context, b *bench) error {
			before := runtime.Resources{MemoryLimit: 256 << 20, CPUQuota: 50_000, CPUPeriod: 100_000, PidsLimit: 64}
			after := runtime.Resources{MemoryLimit: 384 << 20, CPUQuota: 80_000, CPUPeriod: 100_000, PidsLimit: 96}
			a, err := b.run(ctx, order{args: []string{"wait"}, resources: before})
			if err != nil {
				return err
			}
			if err := a.ready(ctx); err != nil {
				return err
			}
			for _, r := range []runtime.Resources{after, before} {
				if err := errors.Join(a.group.Create(before.Wider(after)), b.rt.UpdateContainer(ctx, a.containerID, r), a.group.Create(r)); err != nil {
					return err
				}
				if err := a.verify(ctx, r); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

// limited starts a container and compares what is in force.
func (b *bench) limited(ctx context.Context, r runtime.Resources) error {
	a, err := b.run(ctx, order{args: []string{"wait"}, resources: r})
	if err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	return a.verify(ctx, r)
}

// verify compares what is in force for a running container.
func (a *run) verify(ctx context.Context, r runtime.Resources) error {
	st, err := a.b.rt.ContainerStatus(ctx, a.containerID)
	if err != nil {
		return err
	}
	if st.PID == 0 {
		return errors.New("the runtime does not tell the container's process")
	}
	return errors.Join(a.group.Verify(r), a.group.VerifyProcess(st.PID, r, nil))
}

// overrun takes more memory than is allowed.
func (b *bench) overrun(ctx context.Context, how string) (*run, *runtime.Container, error) {
	a, err := b.run(ctx, order{args: []string{how}, resources: runtime.Resources{MemoryLimit: 64 << 20}})
	if err != nil {
		return nil, nil, err
	}
	st, err := a.end(ctx)
	if err != nil {
		return nil, nil, err
	}
	kills, err := a.group.OOMKills()
	if err == nil && kills < 1 {
		err = fmt.Errorf("no kill was counted; the container ended with %d (%s)", st.ExitCode, st.Reason)
	}
	return a, st, err
}
