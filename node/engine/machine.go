package engine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/internal/userns"
	"github.com/v6node/v6node/node/limits"
)

// Machine looks at what limits can be on this machine. What it cannot find out
// it leaves unknown: a limit that does not take is found at the run.
func Machine() limits.Machine {
	var m limits.Machine
	if kib, err := numberAfter("/proc/meminfo", "MemTotal:", 10); err == nil {
		m.Memory = int64(kib) << 10
	}
	m.CPUs, m.Mems = listIn("/sys/devices/system/cpu/online"), listIn("/sys/devices/system/node/has_memory")
	const v1 = "/sys/fs/cgroup/memory/memory."
	_, memory := os.Stat(v1 + "limit_in_bytes")
	_, swap := os.Stat(v1 + "memsw.limit_in_bytes")
	m.NoSwapLimit = memory == nil && errors.Is(swap, os.ErrNotExist)
	if caps, err := numberAfter("/proc/self/status", "CapEff:", 16); err == nil {
		// In a user namespace it has no weight with the kernel.
		m.Privileged = caps&(1<<unix.CAP_SYS_RESOURCE) != 0 && !userns.Inside()
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			m.OOMScoreAdj = n
		}
	}
	m.HardUlimits = map[string]int64{}
	for _, name := range limits.UlimitNames() {
		for resource, label := range rlimitNumbers() {
			var r unix.Rlimit
			if label != name || unix.Getrlimit(resource, &r) != nil {
				continue
			}
			m.HardUlimits[name] = limits.Unlimited
			if r.Max != unix.RLIM_INFINITY {
				m.HardUlimits[name] = int64(min(r.Max, 1<<62))
			}
		}
	}
	return m
}

func rlimitNumbers() map[int]string {
	return map[int]string{
		unix.RLIMIT_CORE: "core", unix.RLIMIT_CPU: "cpu", unix.RLIMIT_DATA: "data", unix.RLIMIT_FSIZE: "fsize", unix.RLIMIT_LOCKS: "locks",
		unix.RLIMIT_MEMLOCK: "memlock", unix.RLIMIT_MSGQUEUE: "msgqueue", unix.RLIMIT_NICE: "nice", unix.RLIMIT_NOFILE: "nofile",
		unix.RLIMIT_NPROC: "nproc", unix.RLIMIT_RSS: "rss", unix.RLIMIT_RTPRIO: "rtprio", unix.RLIMIT_RTTIME: "rttime",
		unix.RLIMIT_SIGPENDING: "sigpending", unix.RLIMIT_STACK: "stack",
	}
}

// textAfter finds the rest of the line that starts with key.
func textAfter(path, key string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), key); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", errors.Join(fmt.Errorf("%s has no %s", path, key), lines.Err())
}

func numberAfter(path, key string, base int) (uint64, error) {
	s, err := textAfter(path, key)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSuffix(s, " kB"), base, 64)
}

func listIn(path string) map[int]bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	set, err := units.ParseList(strings.TrimSpace(string(b)))
	if err != nil {
		return nil
	}
	return set
}
