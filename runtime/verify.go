package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Rlimit is a resource limit of a process (getrlimit(2)), as the OCI runtime
// specification has it.
type Rlimit struct {
	Type string `json:"type"` // "RLIMIT_NOFILE"
	Soft uint64 `json:"soft"` // RlimitInfinity is none
	Hard uint64 `json:"hard"`
}

// RlimitInfinity is no limit.
const RlimitInfinity = unix.RLIM_INFINITY

// rlimits are what the kernel calls the resources in proc_pid_limits(5).
var rlimits = map[string]string{
	"RLIMIT_AS": "Max address space", "RLIMIT_CORE": "Max core file size", "RLIMIT_CPU": "Max cpu time", "RLIMIT_DATA": "Max data size",
	"RLIMIT_FSIZE": "Max file size", "RLIMIT_LOCKS": "Max file locks", "RLIMIT_MEMLOCK": "Max locked memory",
	"RLIMIT_MSGQUEUE": "Max msgqueue size", "RLIMIT_NICE": "Max nice priority", "RLIMIT_NOFILE": "Max open files",
	"RLIMIT_NPROC": "Max processes", "RLIMIT_RSS": "Max resident set", "RLIMIT_RTPRIO": "Max realtime priority",
	"RLIMIT_RTTIME": "Max realtime timeout", "RLIMIT_SIGPENDING": "Max pending signals", "RLIMIT_STACK": "Max stack size",
}

// hardLimit finds a hard limit in the text of proc_pid_limits(5), which may be
// read where prlimit(2) would want rights in the process's user namespace.
func hardLimit(text, label string) (uint64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, label+" ")
		if !ok {
			continue
		}
		fields := strings.Fields(rest) // soft, hard, unit
		if len(fields) < 2 {
			break
		}
		if fields[1] == "unlimited" {
			return RlimitInfinity, nil
		}
		return strconv.ParseUint(fields[1], 10, 64)
	}
	return 0, fmt.Errorf("the kernel tells no %q", label)
}

// VerifyRlimits compares resource limits wanted with those that a process has
// or is to have. Any difference is the error ErrLimit.
func VerifyRlimits(want, have []Rlimit) error {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h Rlimit) bool { return h.Type == w.Type })
		if i < 0 {
			return &Error{Op: "limit the algorithm's processes", Kind: ErrLimit, text: "the runtime does not set " + w.Type}
		}
		if have[i] != w {
			return &Error{Op: "limit the algorithm's processes", Kind: ErrLimit,
				text: fmt.Sprintf("%s should be %s but is %s", w.Type, w.values(), have[i].values())}
		}
	}
	return nil
}

func (r Rlimit) values() string {
	return limitText(r.Soft) + ":" + limitText(r.Hard)
}

func limitText(n uint64) string {
	if n == RlimitInfinity {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// VerifyProcess compares what is in force for a process with what is wanted:
// that it is in a group below this one, for every controller; the limits of
// that group; the OOM score adjustment; the resource limits. A difference is the
// error ErrLimit, a process that has ended ErrNotFound.
//
// The limit of processes and the memory reservation are this group's alone: CRI
// cannot set them on a container.
func (g *Cgroup) VerifyProcess(pid int, want Resources, limits []Rlimit) error {
	op := "check the limits of " + g.name
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	gone := func(err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, ErrNotFound) {
			return &Error{Op: op, Kind: ErrNotFound, Cause: err, text: "its process has ended"}
		}
		return err
	}
	text, err := textValue(filepath.Join(proc, "cgroup"))
	if err != nil {
		return gone(&Error{Op: op, Cause: err})
	}
	rel, err := g.groupOf(text)
	if err != nil && !g.host.none {
		ending, statErr := exiting(proc)
		switch {
		case statErr != nil:
			return gone(statErr)
		case ending:
			return gone(fs.ErrNotExist)
		}
		return &Error{Op: op, Kind: ErrLimit, text: err.Error()}
	}
	want.PidsLimit, want.MemoryReservation = 0, 0
	if g.host.none {
		err = g.Verify(want)
	} else {
		err = g.verifyBelow(rel, want)
	}
	if err != nil {
		return gone(err)
	}
	if want.OOMScoreAdj != nil {
		text, err := textValue(filepath.Join(proc, "oom_score_adj"))
		if err != nil {
			return gone(&Error{Op: op, Cause: err})
		}
		if adj, err := strconv.ParseInt(text, 10, 64); err != nil || adj != *want.OOMScoreAdj {
			return &Error{Op: op, Kind: ErrLimit, text: fmt.Sprintf("the OOM score adjustment should be %d but is %s; a runtime without CAP_SYS_RESOURCE cannot go below its own", *want.OOMScoreAdj, oneLine(text))}
		}
	}
	known := ""
	if len(limits) > 0 {
		var err error
		if known, err = textValue(filepath.Join(proc, "limits")); err != nil {
			return gone(&Error{Op: op, Cause: err})
		}
	}
	for _, w := range limits {
		label, ok := rlimits[w.Type]
		if !ok {
			return &Error{Op: op, Kind: ErrLimit, text: w.Type + " is not a resource limit"}
		}
		hard, err := hardLimit(known, label)
		if err != nil {
			return &Error{Op: op, Cause: err}
		}
		// A process may raise its soft limit, as every Go program does with
		// its files, and lower both.
		if hard > w.Hard {
			return &Error{Op: op, Kind: ErrLimit, text: fmt.Sprintf("the hard limit %s should be %s but is %s", w.Type, limitText(w.Hard), limitText(hard))}
		}
	}
	return nil
}

// pfExiting is the kernel's flag of a task that is past its last instruction.
const pfExiting = 0x4

// exiting tells whether a process is ending or waits to be collected. The kernel
// takes it out of its groups first, so that it seems to be in the root's.
func exiting(proc string) (bool, error) {
	flags, err := statField(proc, 9)
	return flags&pfExiting != 0, err
}

// statField is a number of a process's stat file, counted as in proc_pid_stat(5)
// and behind the second, its name, which may hold anything.
func statField(proc string, number int) (uint64, error) {
	text, err := textValue(filepath.Join(proc, "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const first = 3
	if len(fields) <= number-first {
		return 0, fmt.Errorf("%s/stat has an unknown form", proc)
	}
	n, err := strconv.ParseUint(fields[number-first], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s/stat has an unknown form: %w", proc, err)
	}
	return n, nil
}

// groupOf reads a process's cgroup file and returns the group that it is in, the
// same one for every controller and below g.
func (g *Cgroup) groupOf(text string) (string, error) {
	needed := v1Controllers
	if g.host.version == 2 {
		needed = []string{""}
	}
	found := ""
	for _, controller := range needed {
		rel := groupFor(text, controller)
		switch {
		case rel == "":
			return "", fmt.Errorf("the container is in no %s group", controller)
		case !strings.HasPrefix(rel, g.rel+"/"):
			return "", fmt.Errorf("the container is in the %s group %s, which is not below %s, so nothing bounds it", controller, oneLine(rel), g.rel)
		case found != "" && found != rel:
			return "", fmt.Errorf("the container is in the groups %s and %s", oneLine(found), oneLine(rel))
		}
		found = rel
	}
	return found, nil
}

// verifyBelow accepts the limits on the group at rel, or on one between it and
// g: some runtimes start the process in a group inside the limited one.
func (g *Cgroup) verifyBelow(rel string, want Resources) error {
	var err error
	for at := rel; at != g.rel; at = path.Dir(at) {
		in := &Cgroup{host: g.host, driver: g.driver, name: g.name + " (container)", rel: at}
		if err = in.verifyContainer(want); err == nil {
			return nil
		}
	}
	return err
}

// verifyContainer is Verify for a group that the runtime has made. On v2 it
// gave the CPU shares a weight in one of two ways: the one that cpuWeight has,
// or, as runc 1.5 does, another one, in which 1024 shares are the
// kernel's usual weight of 100.
func (g *Cgroup) verifyContainer(want Resources) error {
	if g.host.version == 2 && want.CPUShares != 0 {
		got, err := g.ReadBack()
		if err != nil {
			return err
		}
		if cpuWeight(got.CPUShares) == newCPUWeight(want.CPUShares) {
			want.CPUShares = 0
		}
	}
	return g.Verify(want)
}

// newCPUWeight maps 2, 1024 and 262144 shares to the weights 1, 100 and 10000,
// and others by the parabola through these three in the logarithms.
func newCPUWeight(shares int64) int64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	x := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, x*(x+125)/612-7.0/34)))
}
