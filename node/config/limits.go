package config

import (
	"fmt"
	"strconv"
)

// Defaults and bounds of limits.
const (
	defaultPids       = 2048 // as Podman
	defaultTmpfsSize  = 64 << 20
	defaultOutputSize = 100 << 20
	minMemory         = 6 << 20 // below this no runtime starts a container
	maxPids           = 1 << 22
)

func (d *decoder) limits(s *section, c *Config) {
	v, _ := s.get("limits")
	l := d.section(v, "limits")
	defer l.done()
	out := &c.Limits
	*out = Limits{Pids: defaultPids, TmpfsSize: defaultTmpfsSize, OutputSize: defaultOutputSize}
	l.size("memory", &out.Memory, minMemory)
	if swap, _ := l.get("memory_swap"); swap != nil && swap.text == "-1" {
		out.MemorySwap = -1
	} else if l.size("memory_swap", &out.MemorySwap, minMemory) && out.MemorySwap < out.Memory {
		d.fail(swap.line, "limits.memory_swap", "limits.memory_swap counts memory and swap together, so it cannot be less than limits.memory")
	}
	if swap, _ := l.get("memory_swap"); swap != nil && out.Memory == 0 && !l.has("memory") {
		d.fail(swap.line, "limits.memory_swap", "limits.memory_swap needs limits.memory")
	}
	if l.size("memory_reservation", &out.MemoryReservation, minMemory) && out.Memory > 0 && out.MemoryReservation > out.Memory {
		at, _ := l.get("memory_reservation")
		d.fail(at.line, "limits.memory_reservation", "limits.memory_reservation cannot be more than limits.memory")
	}
	d.cpus(l, out)
	l.integer("cpu_shares", &out.CPUShares, 2, 262144)
	d.cpuList(l, "cpuset_cpus", &out.CpusetCpus)
	d.cpuList(l, "cpuset_mems", &out.CpusetMems)
	l.integer("pids", &out.Pids, 1, maxPids)
	l.size("tmpfs_size", &out.TmpfsSize, 1<<12)
	l.size("output_size", &out.OutputSize, 1)
}

func (d *decoder) cpus(l *section, out *Limits) {
	v, _ := l.get("cpus")
	if v == nil {
		return
	}
	n, err := strconv.ParseFloat(v.text, 64)
	if v.kind != scalar || err != nil || !(n >= 0.01 && n <= 4096) {
		l.wrong(v, "cpus", "a number from 0.01 to 4096, such as 1.5")
		return
	}
	out.CPUs = n
}

func (d *decoder) cpuList(l *section, key string, to *string) {
	v, _ := l.get(key)
	if v == nil {
		return
	}
	err := fmt.Errorf("it must be a list such as 0-3,8")
	if v.kind == scalar {
		err = checkCPUList(v.text)
	}
	if err != nil {
		d.fail(v.line, l.child(key), "%s: %v", l.child(key), err)
		return
	}
	*to = v.text
}
