package runtime

import (
	"fmt"
	"regexp"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resources are limits of a run. The zero value of a field means "not set".
type Resources struct {
	MemoryLimit       int64 // bytes
	MemorySwap        int64 // bytes of memory and swap together, as in Podman and CRI; -1 is no limit of swap
	MemoryReservation int64 // bytes; under memory pressure the group is reclaimed down to this
	CPUQuota          int64 // microseconds of CPU time per CPUPeriod
	CPUPeriod         int64 // microseconds
	CPUShares         int64 // relative weight, 2..262144, 1024 is usual
	CpusetCpus        string
	CpusetMems        string
	PidsLimit         int64 // processes and threads; CRI has no such field, so only Cgroup applies it
	OOMScoreAdj       *int64
}

// NoSwapLimit as Resources.MemorySwap limits memory alone.
const NoSwapLimit = -1

// defaultPeriod is the kernel's own period of the CPU quota.
const defaultPeriod = 100_000

// normal returns r with what the kernel would make of it: a quota has a period.
func (r Resources) normal() Resources {
	if r.CPUQuota != 0 && r.CPUPeriod == 0 {
		r.CPUPeriod = defaultPeriod
	}
	return r
}

var cpuList = regexp.MustCompile(`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`)

// check refuses what would be dropped or rounded silently further down.
func (r Resources) check(op string) error {
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"memory limit", r.MemoryLimit}, {"memory reservation", r.MemoryReservation},
		{"CPU quota", r.CPUQuota}, {"CPU period", r.CPUPeriod}, {"CPU shares", r.CPUShares}, {"process limit", r.PidsLimit},
	} {
		if f.n < 0 {
			return invalid(op, "the %s %d is negative; leave it out for no limit", f.name, f.n)
		}
	}
	switch {
	case r.MemorySwap < NoSwapLimit:
		return invalid(op, "the limit of memory and swap %d is negative; -1 is no limit", r.MemorySwap)
	case r.MemorySwap != 0 && r.MemoryLimit == 0:
		return invalid(op, "a limit of memory and swap needs a memory limit; set both")
	case r.MemorySwap > 0 && r.MemorySwap < r.MemoryLimit:
		return invalid(op, "the limit of memory and swap (%d) is below the memory limit (%d); it counts both together", r.MemorySwap, r.MemoryLimit)
	case r.CPUQuota != 0 && r.CPUQuota < 1000:
		return invalid(op, "the CPU quota %d µs is below the kernel's least, 1000 µs", r.CPUQuota)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1_000_000):
		return invalid(op, "the CPU period %d µs is not within 1000..1000000 µs", r.CPUPeriod)
	case r.CPUShares != 0 && (r.CPUShares < 2 || r.CPUShares > 262144):
		return invalid(op, "the CPU shares %d are not within 2..262144", r.CPUShares)
	case r.CpusetCpus != "" && !cpuList.MatchString(r.CpusetCpus):
		return invalid(op, "the CPU set %q is not a list such as 0-3,7", r.CpusetCpus)
	case r.CpusetMems != "" && !cpuList.MatchString(r.CpusetMems):
		return invalid(op, "the memory node set %q is not a list such as 0-1", r.CpusetMems)
	case r.OOMScoreAdj != nil && (*r.OOMScoreAdj < -1000 || *r.OOMScoreAdj > 1000):
		return invalid(op, "the OOM score adjustment %d is not within -1000..1000", *r.OOMScoreAdj)
	}
	return nil
}

// Wider returns limits that allow whatever r or o allow. While a group and one
// inside it go from r to o, the outer one needs them: cgroup v1 refuses a group
// a CPU quota or a set below that of a group inside it.
func (r Resources) Wider(o Resources) Resources {
	r, o = r.normal(), o.normal()
	wider := o
	for _, f := range []struct{ to, from *int64 }{
		{&wider.MemoryLimit, &r.MemoryLimit}, {&wider.MemorySwap, &r.MemorySwap}, {&wider.PidsLimit, &r.PidsLimit},
	} {
		// Zero is no limit, and so is -1 of swap.
		if *f.to > 0 && (*f.from <= 0 || *f.from > *f.to) {
			*f.to = *f.from
		}
	}
	if wider.MemorySwap > 0 && wider.MemorySwap < wider.MemoryLimit || wider.MemoryLimit == 0 {
		wider.MemorySwap = 0
	}
	if o.CPUQuota != 0 && (r.CPUQuota == 0 || r.CPUQuota*o.CPUPeriod > o.CPUQuota*r.CPUPeriod) {
		wider.CPUQuota, wider.CPUPeriod = r.CPUQuota, r.CPUPeriod
	}
	join := func(a, b string) string {
		if a == "" || b == "" || a == b {
			return b
		}
		return a + "," + b
	}
	wider.CpusetCpus, wider.CpusetMems = join(r.CpusetCpus, o.CpusetCpus), join(r.CpusetMems, o.CpusetMems)
	return wider
}

// checkResources refuses also what this runtime does not take.
func (c *Client) checkResources(op string, r Resources) error {
	if err := r.check(op); err != nil {
		return err
	}
	if least := c.info.Load().MinMemory; r.MemoryLimit != 0 && r.MemoryLimit < least {
		return &Error{Op: op, Kind: ErrLimit,
			text: fmt.Sprintf("the memory limit is %d bytes, but this runtime wants at least %d (%d MiB); raise it", r.MemoryLimit, least, least>>20)}
	}
	return nil
}

// cri returns the part of r that CRI can express.
func (r Resources) cri() *cri.LinuxContainerResources {
	r = r.normal()
	out := &cri.LinuxContainerResources{
		CpuPeriod:              r.CPUPeriod,
		CpuQuota:               r.CPUQuota,
		CpuShares:              r.CPUShares,
		MemoryLimitInBytes:     r.MemoryLimit,
		MemorySwapLimitInBytes: r.MemorySwap,
		CpusetCpus:             r.CpusetCpus,
		CpusetMems:             r.CpusetMems,
	}
	if r.OOMScoreAdj != nil {
		out.OomScoreAdj = *r.OOMScoreAdj
	}
	return out
}
