package limits

import (
	"fmt"
	"slices"

	"github.com/v6node/v6node/internal/units"
)

// Machine is what limits are held against before a run comes. Zero values are
// unknown and refuse nothing.
type Machine struct {
	Memory int64 // bytes
	CPUs   map[int]bool
	Mems   map[int]bool // memory nodes
	// NoSwapLimit: the kernel does not count swap.
	NoSwapLimit bool
	// OOMScoreAdj is the node's own, below which runs cannot get unless
	// Privileged (CAP_SYS_RESOURCE).
	OOMScoreAdj int64
	Privileged  bool
	// HardUlimits are the node's own by name, Unlimited for none; only
	// Privileged can go beyond.
	HardUlimits map[string]int64
}

// Fit reports the limits that cannot be applied on the machine, and those that
// can but mean nothing there.
func (l Limits) Fit(m Machine) (impossible, pointless []Problem) {
	no := func(key, format string, a ...any) {
		impossible = append(impossible, Problem{key, fmt.Sprintf(format, a...)})
	}
	idle := func(key, format string, a ...any) {
		pointless = append(pointless, Problem{key, fmt.Sprintf(format, a...)})
	}
	if m.Memory > 0 && l.Memory > m.Memory {
		idle("memory", "%s is more than the machine has (%s)", units.FormatSize(l.Memory), units.FormatSize(m.Memory))
	}
	if l.MemorySwap > 0 && m.NoSwapLimit {
		no("memory_swap", "the kernel does not count swap; boot it with swapaccount=1, or leave the key out")
	}
	if n := len(m.CPUs); n > 0 && l.CPUs > float64(n) {
		idle("cpus", "%g is more than the machine has (%d)", l.CPUs, n)
	}
	for _, c := range []struct {
		key, list, what string
		have            map[int]bool
	}{{"cpuset_cpus", l.CpusetCpus, "CPU", m.CPUs}, {"cpuset_mems", l.CpusetMems, "memory node", m.Mems}} {
		want, err := units.ParseList(c.list)
		if c.list == "" || len(c.have) == 0 || err != nil {
			continue
		}
		var missing []int
		for n := range want {
			if !c.have[n] {
				missing = append(missing, n)
			}
		}
		if len(missing) > 0 {
			no(c.key, "this machine has no %s %d", c.what, slices.Min(missing))
		}
	}
	if m.Privileged {
		return impossible, pointless
	}
	if l.OOMScoreAdj != nil && *l.OOMScoreAdj < m.OOMScoreAdj {
		no("oom_score_adj", "%d is below the node's own, %d, and going below needs CAP_SYS_RESOURCE, which the node does not have", *l.OOMScoreAdj, m.OOMScoreAdj)
	}
	for _, u := range l.Ulimits {
		have, known := m.HardUlimits[u.Name]
		if known && have != Unlimited && (u.Hard == Unlimited || u.Hard > have) {
			no("ulimits", "%s is above the node's own hard limit, %d, and going beyond needs CAP_SYS_RESOURCE, which the node does not have", u, have)
		}
	}
	return impossible, pointless
}
