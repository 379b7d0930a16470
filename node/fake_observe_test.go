package node

import (
	"context"

	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/runtime"
)

func (e *fakeEngine) Inspect(_ context.Context, runID int64) (*engine.Details, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, r := range e.runs {
		if r.spec.RunID == runID {
			var names []string
			for _, v := range r.spec.Env {
				names = append(names, v.Name)
			}
			return &engine.Details{
				Sandbox:   &runtime.Sandbox{ID: r.sandbox, Ready: true},
				Container: &runtime.Container{ID: id, State: runtime.StateRunning, Mounts: r.spec.Mounts, EnvNames: names},
				Effective: r.spec.Resources,
			}, nil
		}
	}
	return nil, engine.ErrVanished
}

func (e *fakeEngine) Usage(int64) (runtime.Usage, error) {
	return runtime.Usage{CPUNanos: 1e9, UserNanos: 9e8, SystemNanos: 1e8, Memory: 1 << 20, PeakMemory: 2 << 20, Pids: 1, Throttled: 3, ThrottledNanos: 7, ReadBytes: 5, WrittenBytes: 6}, nil
}

func (e *fakeEngine) Update(_ context.Context, runID int64, r runtime.Resources) (runtime.Resources, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.runs {
		if f.spec.RunID == runID {
			f.spec.Resources = r
			return r, nil
		}
	}
	return runtime.Resources{}, engine.ErrVanished
}
