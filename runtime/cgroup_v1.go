package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// createV1 makes the group in every hierarchy, not only in those with limits:
// the runtime will make its own below, and would otherwise be in a race with the
// removal of another run's group about the directories above.
func (g *Cgroup) createV1(r Resources) error {
	needed := make([]string, 0, len(v1Controllers))
	for _, name := range v1Controllers {
		root := g.host.controllers[name]
		if root == "" {
			return fmt.Errorf("the kernel has no %s controller; enable it at boot", name)
		}
		needed = append(needed, root)
	}
	if g.driver == Cgroupfs {
		top := filepath.Join(g.host.base, cgroupTop)
		if os.Mkdir(filepath.Join(g.host.controllers["cpu"], top), 0o755) == nil { // else it is there, or what follows says why not
			if err := writeInt(g.host.file("cpu", top, "cpu.shares"), topShares); err != nil {
				return err
			}
		}
	}
	for _, root := range g.host.roots {
		err := os.MkdirAll(filepath.Join(root, g.rel), 0o755)
		if err != nil && slices.Contains(needed, root) {
			return err
		}
	}
	if err := fillCpuset(g.host.controllers["cpuset"], g.rel); err != nil {
		return err
	}
	memory := func(name string) string { return g.host.file("memory", g.rel, name) }
	cpu := func(name string) string { return g.host.file("cpu", g.rel, name) }

	if r.MemoryLimit != 0 {
		// The limit of both may never be below that of memory, so which comes
		// first depends on what is set already.
		err := writeInt(memory("memory.limit_in_bytes"), r.MemoryLimit)
		if r.MemorySwap != 0 && !(r.MemorySwap == NoSwapLimit && !exists(memory("memory.memsw.limit_in_bytes"))) {
			if err2 := writeInt(memory("memory.memsw.limit_in_bytes"), r.MemorySwap); err2 != nil {
				if errors.Is(err2, fs.ErrNotExist) {
					return errors.New("the kernel does not count swap (boot with swapaccount=1), so memory and swap together cannot be limited")
				}
				return err2
			}
			if err != nil {
				err = writeInt(memory("memory.limit_in_bytes"), r.MemoryLimit)
			}
		}
		if err != nil {
			return err
		}
	}
	steps := []struct {
		set   bool
		file  string
		value string
	}{
		{r.MemoryReservation != 0, memory("memory.soft_limit_in_bytes"), fmt.Sprint(r.MemoryReservation)},
		{r.CPUPeriod != 0, cpu("cpu.cfs_period_us"), fmt.Sprint(r.CPUPeriod)},
		{r.CPUQuota != 0, cpu("cpu.cfs_quota_us"), fmt.Sprint(r.CPUQuota)},
		{r.CPUShares != 0, cpu("cpu.shares"), fmt.Sprint(r.CPUShares)},
		{r.PidsLimit != 0, g.host.file("pids", g.rel, "pids.max"), fmt.Sprint(r.PidsLimit)},
		{r.CpusetCpus != "", g.host.file("cpuset", g.rel, "cpuset.cpus"), r.CpusetCpus},
		{r.CpusetMems != "", g.host.file("cpuset", g.rel, "cpuset.mems"), r.CpusetMems},
	}
	for _, s := range steps {
		if s.set {
			if err := writeValue(s.file, s.value); err != nil {
				return err
			}
		}
	}
	return g.subscribeOOM()
}

// fillCpuset gives each group from the top down the CPUs and memory nodes of
// the one above: on v1 a group without them cannot have processes.
func fillCpuset(root, rel string) error {
	if rel == "/" || rel == "." {
		return nil
	}
	up := filepath.Dir(rel)
	if err := fillCpuset(root, up); err != nil {
		return err
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		mine, err := textValue(filepath.Join(root, rel, name))
		if err != nil {
			return err
		}
		if mine != "" {
			continue
		}
		above, err := textValue(filepath.Join(root, up, name))
		if err != nil {
			return err
		}
		if err := writeValue(filepath.Join(root, rel, name), above); err != nil {
			return err
		}
	}
	return nil
}

func (g *Cgroup) readV1() (Resources, error) {
	var r Resources
	for _, v := range []struct {
		to               *int64
		controller, name string
		optional         bool
	}{
		{&r.MemoryLimit, "memory", "memory.limit_in_bytes", false},
		{&r.MemorySwap, "memory", "memory.memsw.limit_in_bytes", true},
		{&r.MemoryReservation, "memory", "memory.soft_limit_in_bytes", false},
		{&r.CPUPeriod, "cpu", "cpu.cfs_period_us", false},
		{&r.CPUQuota, "cpu", "cpu.cfs_quota_us", false},
		{&r.CPUShares, "cpu", "cpu.shares", false},
		{&r.PidsLimit, "pids", "pids.max", false},
	} {
		n, err := intValue(g.host.file(v.controller, g.rel, v.name))
		if err != nil && !(v.optional && errors.Is(err, fs.ErrNotExist)) {
			return r, err
		}
		*v.to = n
	}
	var err error
	if r.CpusetCpus, err = textValue(g.host.file("cpuset", g.rel, "cpuset.cpus")); err != nil {
		return r, err
	}
	r.CpusetMems, err = textValue(g.host.file("cpuset", g.rel, "cpuset.mems"))
	return r, err
}

// subscribeOOM asks the kernel to count the out-of-memory events of this group
// in an eventfd (Documentation/admin-guide/cgroup-v1/memory.rst, 10).
func (g *Cgroup) subscribeOOM() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.oom != nil {
		return nil
	}
	control, err := os.Open(g.host.file("memory", g.rel, "memory.oom_control"))
	if err != nil {
		return err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	events := os.NewFile(uintptr(fd), "oom")
	order := fmt.Sprintf("%d %d", fd, control.Fd())
	if err := writeValue(g.host.file("memory", g.rel, "cgroup.event_control"), order); err != nil {
		events.Close()
		return err
	}
	g.oom = events
	return nil
}

// watchOOMV1 subscribes to a group that another process has made, and counts
// what happened before as far as the kernel still tells.
func (g *Cgroup) watchOOMV1() error {
	before, err := g.oomKillsV1()
	if err != nil {
		return err
	}
	g.mu.Lock()
	subscribed := g.oom != nil
	if !subscribed {
		g.kills = before
	}
	g.mu.Unlock()
	if subscribed {
		return nil
	}
	return g.subscribeOOM()
}

func (g *Cgroup) closeOOM() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.oom != nil {
		g.oom.Close()
		g.oom = nil
	}
}

func (g *Cgroup) oomKillsV1() (int64, error) {
	events, err := g.readOOM()
	if err != nil {
		return 0, err
	}
	var counted int64
	root := filepath.Dir(g.host.file("memory", g.rel, "memory.oom_control"))
	err = filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && dir != root && errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		n, err := keyedValue(filepath.Join(dir, "memory.oom_control"), "oom_kill")
		if err != nil && dir != root && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		counted += n
		return err
	})
	return max(events, counted), err
}

// readOOM returns the events counted since Create.
func (g *Cgroup) readOOM() (int64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.oom == nil {
		return g.kills, nil
	}
	raw, err := g.oom.SyscallConn()
	if err != nil {
		return 0, err
	}
	var buf [8]byte
	var n int
	var readErr error
	if err := raw.Control(func(fd uintptr) { n, readErr = unix.Read(int(fd), buf[:]) }); err != nil {
		return 0, err
	}
	switch {
	case readErr == unix.EAGAIN:
	case readErr != nil:
		return 0, readErr
	case n == len(buf):
		g.kills += int64(binary.NativeEndian.Uint64(buf[:]))
	}
	return g.kills, nil
}
