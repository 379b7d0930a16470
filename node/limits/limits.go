package limits

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/v6node/v6node/internal/units"
)

// Limits hold for one run. Zero is "not limited", unless said otherwise.
type Limits struct {
	Memory            int64         `json:"memory,omitempty"`             // bytes
	MemorySwap        int64         `json:"memory_swap,omitempty"`        // bytes of memory and swap together; 0 is no swap beside a memory limit, -1 unlimited swap
	MemoryReservation int64         `json:"memory_reservation,omitempty"` // bytes to which the run is reclaimed under pressure
	CPUs              float64       `json:"cpus,omitempty"`
	CPUShares         int64         `json:"cpu_shares,omitempty"` // 0 is the kernel's, 1024
	CpusetCpus        string        `json:"cpuset_cpus,omitempty"`
	CpusetMems        string        `json:"cpuset_mems,omitempty"`
	Pids              int64         `json:"pids,omitempty"`         // processes and threads
	ShmSize           int64         `json:"shm_size,omitempty"`     // bytes of /dev/shm; 0 leaves it to the runtime, which makes 64 MiB
	TmpfsSize         int64         `json:"tmpfs_size,omitempty"`   // bytes of the in-memory /tmp
	InputSize         int64         `json:"input_size,omitempty"`   // bytes of the input
	OutputSize        int64         `json:"output_size,omitempty"`  // bytes of the result
	ScratchSize       int64         `json:"scratch_size,omitempty"` // bytes of /mnt/tmp
	LogSize           int64         `json:"log_size,omitempty"`     // bytes that its log takes on the disk
	Ulimits           []Ulimit      `json:"ulimits,omitempty"`      // sorted by name
	Devices           []Device      `json:"devices,omitempty"`
	OOMScoreAdj       *int64        `json:"oom_score_adj,omitempty"` // nil is 0
	CrashRetries      int64         `json:"crash_retries,omitempty"` // how often a crashed algorithm is run again
	Timeout           time.Duration `json:"timeout,omitempty"`       // wall clock, from the algorithm's start
}

// Defaults are the limits of a node whose administrator says nothing.
func Defaults() Limits {
	return Limits{Pids: 2048, TmpfsSize: 64 << 20, InputSize: 4 << 30, OutputSize: 100 << 20, ScratchSize: 10 << 30, LogSize: 64 << 20}
}

// Unlimited is a ulimit without a bound, and swap without one.
const Unlimited = -1

// Ulimit is a resource limit of the algorithm's processes (getrlimit(2)).
type Ulimit struct {
	Name string `json:"name"` // as in Podman: "nofile"
	Soft int64  `json:"soft"` // Unlimited, or in the unit of getrlimit(2)
	Hard int64  `json:"hard"`
}

// ulimitNames are Podman's and Docker's.
var ulimitNames = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
}

// UlimitNames are the names that a ulimit can have.
func UlimitNames() []string { return slices.Clone(ulimitNames) }

// ParseUlimit reads "name=soft[:hard]"; -1 and "unlimited" are no limit.
func ParseUlimit(s string) (Ulimit, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || value == "" {
		return Ulimit{}, fmt.Errorf("%q is not a ulimit; write name=soft:hard, such as nofile=1024:4096", units.Clip(s))
	}
	if !slices.Contains(ulimitNames, name) {
		return Ulimit{}, fmt.Errorf("%q is none of the ulimits %s", units.Clip(name), strings.Join(ulimitNames, ", "))
	}
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	u := Ulimit{Name: name}
	for _, v := range []struct {
		text string
		to   *int64
	}{{soft, &u.Soft}, {hard, &u.Hard}} {
		if v.text == "unlimited" {
			v.text = "-1"
		}
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || n < Unlimited {
			return Ulimit{}, fmt.Errorf("%q in %q is not a number, -1 or unlimited", units.Clip(v.text), units.Clip(s))
		}
		*v.to = n
	}
	if u.Hard != Unlimited && (u.Soft > u.Hard || u.Soft == Unlimited) {
		return Ulimit{}, fmt.Errorf("%q: the soft limit is above the hard one", units.Clip(s))
	}
	return u, nil
}

// String is what ParseUlimit reads.
func (u Ulimit) String() string { return fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard) }

// Problem is one thing that is wrong with limits.
type Problem struct {
	Key  string // of the configuration: "memory_swap"
	Text string // goes on after the key: "needs a memory limit"
}

func (p Problem) String() string { return p.Key + ": " + p.Text }

// Check reports limits that contradict each other.
func (l Limits) Check() []Problem {
	var out []Problem
	add := func(key, format string, a ...any) { out = append(out, Problem{key, fmt.Sprintf(format, a...)}) }
	if l.MemorySwap != 0 && l.Memory == 0 {
		add("memory_swap", "it needs a limit of memory too")
	} else if l.MemorySwap > 0 && l.MemorySwap < l.Memory {
		add("memory_swap", "it counts memory and swap together, so it cannot be less than memory (%s)", units.FormatSize(l.Memory))
	}
	if l.Memory > 0 && l.MemoryReservation > l.Memory {
		add("memory_reservation", "it cannot be more than memory (%s)", units.FormatSize(l.Memory))
	}
	return out
}
