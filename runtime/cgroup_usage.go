package runtime

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what everything in a control group has used since it was made, and
// uses now.
type Usage struct {
	CPUNanos       int64 // CPU time
	UserNanos      int64 // of it outside the kernel
	SystemNanos    int64 // of it inside the kernel
	ThrottledNanos int64 // time for which the CPU limit held it back
	Throttled      int64 // periods in which it did so
	Memory         int64 // bytes, without file cache that the kernel can drop at once
	PeakMemory     int64 // bytes, file cache included; on cgroup v2 since Linux 5.19
	MemoryLimit    int64 // bytes, 0 for none
	Pids           int64 // processes and threads
	PidsLimit      int64 // 0 for none
	ReadBytes      int64 // from block devices
	WrittenBytes   int64
	OOMKills       int64 // processes killed for want of memory, see OOMKills
}

// Usage reads the kernel's counters. What this kernel does not count is zero.
//
// Throttling is counted in the group whose limit it was, which is often the
// container's and goes with it. What was read of it once is not forgotten: who
// wants it after the end reads Usage from time to time before.
func (g *Cgroup) Usage() (Usage, error) {
	if g.host.none {
		return Usage{}, g.readError("read the counters of", errNoCgroup)
	}
	read := g.usageV1
	if g.host.version == 2 {
		read = g.usageV2
	}
	u, err := read()
	if err != nil {
		return Usage{}, g.readError("read the usage of", err)
	}
	if u.PeakMemory, err = g.PeakMemory(); err != nil && !errors.Is(err, ErrNotFound) {
		return Usage{}, err
	}
	if kills, err := g.OOMKills(); err == nil { // an old kernel does not count them
		u.OOMKills = kills
	}
	g.remember(&u)
	return u, nil
}

// remember keeps what a removed group has taken with it.
func (g *Cgroup) remember(u *Usage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.throttled, g.throttledNanos = max(g.throttled, u.Throttled), max(g.throttledNanos, u.ThrottledNanos)
	u.Throttled, u.ThrottledNanos = g.throttled, g.throttledNanos
}

// ticksPerSecond is the unit in which cgroup v1 shows CPU time by mode: user
// space is shown a hundredth of a second, whatever the kernel counts in itself
// (Documentation/admin-guide/cgroup-v1/cpuacct.rst).
const ticksPerSecond = 100

// usageV1 reads the files of cgroup v1
// (Documentation/admin-guide/cgroup-v1/{cpuacct,memory,pids,blkio-controller}.rst).
func (g *Cgroup) usageV1() (u Usage, err error) {
	memory := func(name string) string { return g.host.file("memory", g.rel, name) }
	if u.Memory, err = intValue(memory("memory.usage_in_bytes")); err != nil {
		return u, err
	}
	inactive, err := keyedValue(memory("memory.stat"), "total_inactive_file")
	if err != nil {
		return u, err
	}
	u.Memory = max(0, u.Memory-inactive)
	if u.MemoryLimit, err = intValue(memory("memory.limit_in_bytes")); err != nil {
		return u, err
	}
	if u.Pids, err = intValue(g.host.file("pids", g.rel, "pids.current")); err != nil {
		return u, err
	}
	if u.PidsLimit, err = intValue(g.host.file("pids", g.rel, "pids.max")); err != nil {
		return u, err
	}
	if root := g.host.accounting["cpuacct"]; root != "" {
		if u.CPUNanos, err = intValue(filepath.Join(root, g.rel, "cpuacct.usage")); err != nil {
			return u, err
		}
		for key, to := range map[string]*int64{"user": &u.UserNanos, "system": &u.SystemNanos} {
			ticks, err := keyedValue(filepath.Join(root, g.rel, "cpuacct.stat"), key)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return u, err
			}
			*to = ticks * (1e9 / ticksPerSecond)
		}
	}
	if u.Throttled, u.ThrottledNanos, err = g.throttling("throttled_time", 1); err != nil {
		return u, err
	}
	if root := g.host.accounting["blkio"]; root != "" {
		text, err := textValue(filepath.Join(root, g.rel, "blkio.throttle.io_service_bytes_recursive"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return u, err
		}
		for line := range strings.Lines(text) {
			// 8:0 Read 4096
			if f := strings.Fields(line); len(f) == 3 {
				n, _ := strconv.ParseInt(f[2], 10, 64) // a line that is none adds nothing
				switch f[1] {
				case "Read":
					u.ReadBytes += n
				case "Write":
					u.WrittenBytes += n
				}
			}
		}
	}
	return u, nil
}

// throttling adds up what was held back by the run's limit and by those that
// the runtime put on its containers: the kernel counts at the group whose limit
// it was. A group without the cpu controller of cgroup v2 counts nothing.
func (g *Cgroup) throttling(timeKey string, unit int64) (times, nanos int64, err error) {
	root := filepath.Dir(g.host.file("cpu", g.rel, "cpu.stat"))
	err = filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && dir != root && errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		text, err := textValue(filepath.Join(dir, "cpu.stat"))
		if dir != root && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			n, _ := strconv.ParseInt(value, 10, 64) // the kernel writes numbers
			switch key {
			case "nr_throttled":
				times += n
			case timeKey:
				nanos += n * unit
			}
		}
		return err
	})
	return times, nanos, err
}

// usageV2 reads the files of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).
func (g *Cgroup) usageV2() (u Usage, err error) {
	file := func(name string) string { return g.host.file("", g.rel, name) }
	if u.Memory, err = intValue(file("memory.current")); err != nil {
		return u, err
	}
	inactive, err := keyedValue(file("memory.stat"), "inactive_file")
	if err != nil {
		return u, err
	}
	u.Memory = max(0, u.Memory-inactive)
	for _, v := range []struct {
		to   *int64
		name string
	}{{&u.MemoryLimit, "memory.max"}, {&u.Pids, "pids.current"}, {&u.PidsLimit, "pids.max"}} {
		if *v.to, err = intValue(file(v.name)); err != nil {
			return u, err
		}
	}
	for key, to := range map[string]*int64{"usage_usec": &u.CPUNanos, "user_usec": &u.UserNanos, "system_usec": &u.SystemNanos} {
		micros, err := keyedValue(file("cpu.stat"), key)
		if err != nil {
			return u, err
		}
		*to = 1000 * micros
	}
	if u.Throttled, u.ThrottledNanos, err = g.throttling("throttled_usec", 1000); err != nil {
		return u, err
	}
	text, err := textValue(file("io.stat"))
	if errors.Is(err, os.ErrNotExist) {
		return u, nil
	}
	for line := range strings.Lines(text) {
		// 8:0 rbytes=4096 wbytes=0 rios=1 ...
		for _, f := range strings.Fields(line) {
			key, value, _ := strings.Cut(f, "=")
			n, _ := strconv.ParseInt(value, 10, 64) // the device's number adds nothing
			switch key {
			case "rbytes":
				u.ReadBytes += n
			case "wbytes":
				u.WrittenBytes += n
			}
		}
	}
	return u, err
}
