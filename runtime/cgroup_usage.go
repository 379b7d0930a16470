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
	ThrottledNanos int64 // time for which the CPU limit held it back
	Throttled      int64 // how often
	Memory         int64 // bytes, without file cache that the kernel can drop at once
	MemoryLimit    int64 // bytes, 0 for none
	Pids           int64 // processes and threads
	PidsLimit      int64 // 0 for none
	ReadBytes      int64 // from block devices
	WrittenBytes   int64
}

// Usage reads the kernel's counters. What this kernel does not count is zero.
func (g *Cgroup) Usage() (Usage, error) {
	read := g.usageV1
	if g.host.version == 2 {
		read = g.usageV2
	}
	u, err := read()
	if err != nil {
		return Usage{}, g.readError("usage", err)
	}
	return u, nil
}

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
	}
	if u.Throttled, u.ThrottledNanos, err = g.throttledV1(); err != nil {
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

// throttledV1 adds up what was held back by the run's limit and by those that
// the runtime put on its containers: v1 counts at the group whose limit it was.
func (g *Cgroup) throttledV1() (times, nanos int64, err error) {
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
		n, err := keyedValue(filepath.Join(dir, "cpu.stat"), "nr_throttled")
		if err == nil {
			times += n
			n, err = keyedValue(filepath.Join(dir, "cpu.stat"), "throttled_time")
			nanos += n
		}
		if dir != root && errors.Is(err, fs.ErrNotExist) {
			return nil
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
	micros, err := keyedValue(file("cpu.stat"), "usage_usec")
	if err != nil {
		return u, err
	}
	u.CPUNanos = 1000 * micros
	// These two are there only while the cpu controller is enabled.
	if u.Throttled, err = keyedValue(file("cpu.stat"), "nr_throttled"); err == nil {
		micros, err = keyedValue(file("cpu.stat"), "throttled_usec")
		u.ThrottledNanos = 1000 * micros
	}
	if err != nil {
		u.Throttled, u.ThrottledNanos = 0, 0
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
