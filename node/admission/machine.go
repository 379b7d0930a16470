package admission

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Capacity is what this process could use at most: the machine, or the
// cgroup that it lives in where that allows less.
type Capacity struct {
	Resources
	// Source says for memory, cpus and pids which file set the amount.
	Source map[string]string
}

// Machine reads the capacity from /proc and the cgroup file systems, version 1
// and 2, following this process's cgroup up to the top that can be seen.
func Machine() (Capacity, error) {
	return capacity(os.DirFS("/"), runtime.NumCPU())
}

// Limits of what the default budget keeps and allows.
const (
	minReserve = 256 << 20
	maxReserve = 4 << 30
	memPerRun  = 256 << 20 // less than this makes no sense as a run's equal share
	runsPerCPU = 4
	minRuns    = 2
	manyRuns   = 100
)

// DefaultReserve is what is kept for the node, the runtime and the system: a
// tenth of the memory, between 256 MiB and 4 GiB but never more than half, a
// tenth of the pids, and no CPU, since CPU time can be shared.
func (c Capacity) DefaultReserve() Resources {
	return Resources{
		Memory: min(max(c.Memory/10, minReserve), maxReserve, c.Memory/2),
		Pids:   c.Pids / 10,
	}
}

// Budget is the capacity less a reserve; nil means DefaultReserve. It allows
// four runs for each CPU, at most 100 and at most one for each 256 MiB, but at
// least two, so that a run and its subtask can run together.
func (c Capacity) Budget(reserve *Resources) (Budget, error) {
	r := c.DefaultReserve()
	if reserve != nil {
		r = *reserve
	}
	b := Budget{Resources: Resources{Memory: c.Memory - r.Memory, MilliCPUs: c.MilliCPUs - r.MilliCPUs, Pids: c.Pids - r.Pids}}
	for _, a := range []struct {
		what string
		left int64
		has  string
	}{
		{"memory", b.Memory, formatBytes(c.Memory)},
		{"CPUs", b.MilliCPUs, strconv.FormatFloat(float64(c.MilliCPUs)/1000, 'f', -1, 64)},
		{"pids", b.Pids, strconv.FormatInt(c.Pids, 10)},
	} {
		if a.left <= 0 {
			return Budget{}, fmt.Errorf("%w: the reserve leaves no %s of the %s that this machine, or the node's cgroup, has: make the reserve smaller", ErrInvalid, a.what, a.has)
		}
	}
	b.Runs = max(min(runsPerCPU*((b.MilliCPUs+999)/1000), b.Memory/memPerRun, manyRuns), minRuns)
	return b, nil
}

// lower takes n for a resource if that is less than what is known.
func (c *Capacity) lower(resource string, have *int64, n int64, source string) {
	if n > 0 && n < *have {
		*have = n
		c.Source[resource] = "/" + source
	}
}

func capacity(root fs.FS, cpus int) (Capacity, error) {
	c := Capacity{Resources: Resources{Memory: maxAmount, MilliCPUs: int64(cpus) * 1000, Pids: maxAmount}, Source: map[string]string{"cpus": "the CPUs that this process may use"}}
	total, err := memTotal(root)
	if err != nil {
		return Capacity{}, fmt.Errorf("find out how much memory this machine has: %w; set the budget in the configuration", err)
	}
	c.lower("memory", &c.Memory, total, "proc/meminfo")
	for _, name := range []string{"proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max"} {
		n, ok := readNumber(root, name)
		if !ok {
			continue
		}
		c.lower("pids", &c.Pids, n, name)
	}
	if c.Pids == maxAmount {
		return Capacity{}, fmt.Errorf("find out how many processes this machine allows: /proc/sys/kernel/pid_max cannot be read; set the budget in the configuration")
	}
	for _, h := range hierarchies(root) {
		for dir := h.own; ; dir = path.Dir(dir) {
			c.cgroup(root, dir)
			if dir == h.mount || len(dir) <= len(h.mount) {
				break
			}
		}
	}
	return c, nil
}

// cgroup applies the limits of one cgroup directory, of whatever version.
func (c *Capacity) cgroup(root fs.FS, dir string) {
	for _, f := range []struct {
		resource, name string
		have           *int64
	}{
		{"memory", "memory.max", &c.Memory},
		{"memory", "memory.limit_in_bytes", &c.Memory},
		{"pids", "pids.max", &c.Pids},
	} {
		name := path.Join(dir, f.name)
		if n, ok := readNumber(root, name); ok {
			c.lower(f.resource, f.have, n, name)
		}
	}
	name := path.Join(dir, "cpu.max")
	if text, ok := readSmall(root, name); ok {
		if fields := strings.Fields(text); len(fields) == 2 {
			c.lower("cpus", &c.MilliCPUs, milliCPUs(fields[0], fields[1]), name)
		}
	}
	name = path.Join(dir, "cpu.cfs_quota_us")
	if quota, ok := readSmall(root, name); ok {
		if period, ok := readSmall(root, path.Join(dir, "cpu.cfs_period_us")); ok {
			c.lower("cpus", &c.MilliCPUs, milliCPUs(quota, period), name)
		}
	}
}

// milliCPUs converts a quota and its period; no limit is 0.
func milliCPUs(quota, period string) int64 {
	q, err := strconv.ParseInt(strings.TrimSpace(quota), 10, 64)
	if err != nil || q <= 0 || q > math.MaxInt64/1000 {
		return 0 // "max" or -1
	}
	p, err := strconv.ParseInt(strings.TrimSpace(period), 10, 64)
	if err != nil || p <= 0 {
		return 0
	}
	return max(q*1000/p, 1)
}

// hierarchy is a mounted cgroup file system and where this process is in it.
type hierarchy struct{ mount, own string }

// hierarchies reads /proc/self/cgroup and mountinfo, formats in proc(5) and
// cgroups(7). What cannot be read limits nothing.
func hierarchies(root fs.FS) []hierarchy {
	paths := make(map[string]string) // by v1 controller, "" for v2
	forLines(root, "proc/self/cgroup", func(line string) {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			return
		}
		for name := range strings.SplitSeq(f[1], ",") {
			paths[name] = f[2]
		}
	})
	var out []hierarchy
	forLines(root, "proc/self/mountinfo", func(line string) {
		mount, super, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(mount), strings.Fields(super)
		if !ok || len(f) < 5 || len(g) < 3 {
			return
		}
		var own string
		var in bool
		switch g[0] {
		case "cgroup2":
			own, in = paths[""]
		case "cgroup":
			for option := range strings.SplitSeq(g[2], ",") {
				if p, ok := paths[option]; ok && option != "" {
					own, in = p, true
				}
			}
		}
		if !in {
			return
		}
		point := strings.TrimPrefix(path.Clean(unescape(f[4])), "/")
		// The mount may show only a part of the hierarchy, as in a container;
		// then the path counts from that part.
		below := own
		if part := path.Clean(unescape(f[3])); part != "/" {
			rest, inside := strings.CutPrefix(own, part)
			if below = "/"; inside && (rest == "" || rest[0] == '/') {
				below = rest
			}
		}
		out = append(out, hierarchy{mount: point, own: path.Join(point, path.Clean("/"+below))})
	})
	return out
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func memTotal(root fs.FS) (int64, error) {
	var total int64
	err := forLines(root, "proc/meminfo", func(line string) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil && n > 0 && n < maxAmount/1024 {
				total = n * 1024
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if total == 0 {
		return 0, fmt.Errorf("/proc/meminfo has no usable MemTotal")
	}
	return total, nil
}

// maxProcFile bounds what is read of one file.
const maxProcFile = 1 << 20

func forLines(root fs.FS, name string, visit func(string)) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	lines := bufio.NewScanner(io.LimitReader(f, maxProcFile))
	for lines.Scan() {
		visit(lines.Text())
	}
	return lines.Err()
}

func readSmall(root fs.FS, name string) (string, bool) {
	f, err := root.Open(name)
	if err != nil {
		return "", false
	}
	defer f.Close() // read only
	text, err := io.ReadAll(io.LimitReader(f, 256))
	return strings.TrimSpace(string(text)), err == nil
}

// readNumber reads a file of one number; "max" is no number.
func readNumber(root fs.FS, name string) (int64, bool) {
	text, ok := readSmall(root, name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n > 0
}
