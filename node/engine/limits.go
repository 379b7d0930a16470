package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/runtime"
)

// cpuPeriod is the period of the CPU quota, in microseconds.
const cpuPeriod = 100_000

// Resources turns limits into what the runtime and the control groups are told.
func Resources(l limits.Limits) runtime.Resources {
	r := runtime.Resources{
		MemoryLimit: l.Memory, MemorySwap: l.MemorySwap, MemoryReservation: l.MemoryReservation,
		CPUShares: l.CPUShares, CpusetCpus: l.CpusetCpus, CpusetMems: l.CpusetMems, PidsLimit: l.Pids, OOMScoreAdj: l.OOMScoreAdj,
	}
	if l.CPUs > 0 {
		r.CPUPeriod = cpuPeriod
		r.CPUQuota = int64(l.CPUs * cpuPeriod)
	}
	return r
}

// Rlimits turns ulimits into the runtime's terms.
func Rlimits(all []limits.Ulimit) []runtime.Rlimit {
	value := func(n int64) uint64 {
		if n == limits.Unlimited {
			return runtime.RlimitInfinity
		}
		return uint64(n)
	}
	var out []runtime.Rlimit
	for _, u := range all {
		out = append(out, runtime.Rlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: value(u.Soft), Hard: value(u.Hard)})
	}
	return out
}

// HandlerName is the name of the runtime handler that gives these limits to its
// containers, where there is one: the node's own containerd has one for each
// list of ulimits that the configuration names.
func HandlerName(all []runtime.Rlimit) string {
	return fmt.Sprintf("v6node-%x", sha256.Sum256(fmt.Append(nil, all)))[:len("v6node-")+12]
}

func (e *CRI) handlerFor(s *Spec) string {
	name := HandlerName(s.Rlimits)
	known := slices.ContainsFunc(e.rt.Info().Handlers, func(h runtime.Handler) bool { return h.Name == name })
	if len(s.Rlimits) == 0 || !known || e.handler != "" {
		return e.handler
	}
	return name
}

// limit makes the run's control group with its limits.
func (e *CRI) limit(ctx context.Context, cg *runtime.Cgroup, s *Spec) error {
	err := cg.Create(s.Resources)
	if err == nil || !s.BestEffort || !errors.Is(err, ErrLimit) {
		return err
	}
	// One by one, so that only those are given up that cannot be had.
	var taken runtime.Resources
	for _, part := range parts(s.Resources) {
		with := part(taken)
		if reflect.DeepEqual(with, taken) {
			continue
		}
		if err := cg.Create(with); err != nil {
			if !errors.Is(err, ErrLimit) {
				return err
			}
			e.log.WarnContext(ctx, "a limit could not be applied; the run goes on without it", "run", s.RunID, "error", err)
			continue
		}
		taken = with
	}
	s.Resources = taken
	return cg.Create(taken)
}

// parts are the limits of r that can be applied by themselves.
func parts(r runtime.Resources) []func(runtime.Resources) runtime.Resources {
	type resources = runtime.Resources
	return []func(resources) resources{
		func(t resources) resources { t.MemoryLimit = r.MemoryLimit; return t },
		func(t resources) resources {
			if t.MemoryLimit != 0 {
				t.MemorySwap = r.MemorySwap
			}
			return t
		},
		func(t resources) resources { t.MemoryReservation = r.MemoryReservation; return t },
		func(t resources) resources { t.CPUQuota, t.CPUPeriod = r.CPUQuota, r.CPUPeriod; return t },
		func(t resources) resources { t.CPUShares = r.CPUShares; return t },
		func(t resources) resources { t.CpusetCpus = r.CpusetCpus; return t },
		func(t resources) resources { t.CpusetMems = r.CpusetMems; return t },
		func(t resources) resources { t.PidsLimit = r.PidsLimit; return t },
		func(t resources) resources { t.OOMScoreAdj = r.OOMScoreAdj; return t },
	}
}

// Verify implements Engine.
func (e *CRI) Verify(ctx context.Context, s *Spec, containerID string) error {
	c, err := e.rt.ContainerStatus(ctx, containerID)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil // Wait says so
	}
	if err != nil {
		return fmt.Errorf("check the limits of run %d: %w", s.RunID, err)
	}
	if err := runtime.VerifyRlimits(s.Rlimits, c.Rlimits); err != nil {
		return fmt.Errorf("%w: CRI has no field for ulimits, so only the node's own containerd takes them from limits.ulimits: set them in the runtime itself (base_runtime_spec of containerd, default_ulimits of CRI-O), or remove them", err)
	}
	cg := e.cgroup(s.RunID)
	if err := cg.Verify(s.Resources); err != nil {
		return err
	}
	if c.State != runtime.StateRunning || c.PID == 0 {
		return nil
	}
	err = cg.VerifyProcess(c.PID, s.Resources, s.Rlimits)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil // it has ended
	}
	return err
}

// Processes implements Engine.
func (e *CRI) Processes(_ context.Context, runID int64) ([]int, error) {
	return e.cgroup(runID).Processes()
}
