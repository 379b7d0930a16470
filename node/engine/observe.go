package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/v6node/v6node/runtime"
)

// Observer shows and adjusts what executes. Its methods are safe for
// concurrent use and may be called at any time; a run that does not live is
// ErrVanished.
type Observer interface {
	// Inspect describes the run's newest sandbox and its container.
	Inspect(ctx context.Context, runID int64) (*Details, error)
	// Usage reads the kernel's counters of the run. It asks no runtime.
	Usage(runID int64) (runtime.Usage, error)
	// Update changes the limits that are not zero, of the run and of its
	// container, and returns those in force. On an error the run keeps what it
	// had as far as the runtime still answers.
	Update(ctx context.Context, runID int64, r runtime.Resources) (runtime.Resources, error)
}

// Details are a sandbox and its container, which is nil before its creation.
type Details struct {
	Sandbox   *runtime.Sandbox
	Container *runtime.Container
	// Cgroup is the run's cgroup as CRI names it.
	Cgroup string
	// Effective are the limits of the run's cgroup.
	Effective runtime.Resources
}

// Inspect implements Observer.
func (e *CRI) Inspect(ctx context.Context, runID int64) (*Details, error) {
	mine := map[string]string{LabelNode: e.instance, LabelRun: strconv.FormatInt(runID, 10)}
	sandboxes, err := e.rt.ListSandboxes(ctx, mine)
	if err != nil {
		return nil, fmt.Errorf("list the sandboxes of run %d: %w", runID, err)
	}
	var newest *runtime.Sandbox
	for _, sb := range sandboxes {
		if newest == nil || sb.Attempt > newest.Attempt {
			newest = sb
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("run %d: %w", runID, ErrVanished)
	}
	d := &Details{Cgroup: e.newCgroup(runID).Parent()}
	if d.Sandbox, err = e.rt.SandboxStatus(ctx, newest.ID); err != nil {
		return nil, fmt.Errorf("ask for the sandbox of run %d: %w", runID, err)
	}
	containers, err := e.rt.ListContainers(ctx, mine)
	if err != nil {
		return nil, fmt.Errorf("list the containers of run %d: %w", runID, err)
	}
	for _, c := range containers {
		if c.SandboxID != newest.ID {
			continue
		}
		if d.Container, err = e.rt.ContainerStatus(ctx, c.ID); err != nil {
			return nil, fmt.Errorf("ask for the container of run %d: %w", runID, err)
		}
	}
	if d.Effective, err = e.newCgroup(runID).ReadBack(); err != nil {
		return nil, fmt.Errorf("read the limits of run %d: %w", runID, err)
	}
	return d, nil
}

// Usage implements Observer.
func (e *CRI) Usage(runID int64) (runtime.Usage, error) {
	u, err := e.cgroupOf(runID).Usage()
	if errors.Is(err, runtime.ErrNotFound) {
		return u, fmt.Errorf("run %d: %w", runID, ErrVanished)
	}
	return u, err
}

// Update implements Observer. The run's own group is opened wide enough for both
// first, then the container changed, then the group: a limit that is raised would
// otherwise not reach the container, and cgroup v1 lets no group have a lower CPU
// quota than one inside it.
func (e *CRI) Update(ctx context.Context, runID int64, r runtime.Resources) (runtime.Resources, error) {
	d, err := e.Inspect(ctx, runID)
	if err != nil {
		return runtime.Resources{}, err
	}
	if d.Container == nil || d.Container.State != runtime.StateRunning {
		return runtime.Resources{}, fmt.Errorf("run %d: %w", runID, ErrVanished)
	}
	g := e.cgroup(runID)
	if err := g.Create(d.Effective.Wider(r)); err != nil {
		return runtime.Resources{}, errors.Join(err, g.Create(d.Effective))
	}
	if err := e.rt.UpdateContainer(ctx, d.Container.ID, r); err != nil {
		return runtime.Resources{}, errors.Join(err, g.Create(d.Effective))
	}
	if err := g.Create(r); err != nil {
		return runtime.Resources{}, errors.Join(err, e.rt.UpdateContainer(ctx, d.Container.ID, d.Effective), g.Create(d.Effective))
	}
	return g.ReadBack()
}
