package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// createV2 makes the group and enables its controllers on the way down.
func (g *Cgroup) createV2(r Resources) error {
	const controllers = "+cpu +memory +pids"
	// What is above the base was enabled by whoever delegated it.
	base, below := filepath.Join(g.host.unified, g.host.base), strings.Trim(strings.TrimPrefix(g.rel, g.host.base), "/")
	at := base
	for name := range strings.SplitSeq(below, "/") {
		if err := enableControllers(at, controllers); err != nil {
			return err
		}
		at = filepath.Join(at, name)
		err := os.Mkdir(at, 0o755)
		if err == nil && name == cgroupTop && g.driver == Cgroupfs {
			err = writeInt(filepath.Join(at, "cpu.weight"), topWeight)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// The runtime limits its own groups below this one.
	if err := enableControllers(at, controllers); err != nil {
		return err
	}
	if r.CpusetCpus != "" || r.CpusetMems != "" {
		up := base
		for name := range strings.SplitSeq(below, "/") {
			if err := enableControllers(up, "+cpuset"); err != nil {
				return err
			}
			up = filepath.Join(up, name)
		}
	}
	file := func(name string) string { return g.host.file("", g.rel, name) }
	if r.MemorySwap != 0 && !(r.MemorySwap == NoSwapLimit && !exists(file("memory.swap.max"))) {
		// v2 limits swap by itself, CRI and Podman both together.
		swap := "max"
		if r.MemorySwap != NoSwapLimit {
			swap = fmt.Sprint(r.MemorySwap - r.MemoryLimit)
		}
		if err := writeValue(file("memory.swap.max"), swap); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return errors.New("the kernel does not count swap (boot with swapaccount=1), so memory and swap together cannot be limited")
			}
			return err
		}
	}
	steps := []struct {
		set   bool
		file  string
		value string
	}{
		{r.MemoryLimit != 0, "memory.max", fmt.Sprint(r.MemoryLimit)},
		{r.MemoryReservation != 0, "memory.low", fmt.Sprint(r.MemoryReservation)},
		{r.CPUQuota != 0, "cpu.max", fmt.Sprintf("%d %d", r.CPUQuota, r.CPUPeriod)},
		{r.CPUShares != 0, "cpu.weight", fmt.Sprint(cpuWeight(r.CPUShares))},
		{r.PidsLimit != 0, "pids.max", fmt.Sprint(r.PidsLimit)},
		{r.CpusetCpus != "", "cpuset.cpus", r.CpusetCpus},
		{r.CpusetMems != "", "cpuset.mems", r.CpusetMems},
	}
	for _, s := range steps {
		if s.set {
			if err := writeValue(file(s.file), s.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// enableControllers hands controllers on to the groups below dir, unless that
// is done already: the file may then be another's to write.
func enableControllers(dir, controllers string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	have, err := textValue(file)
	if err != nil {
		return err
	}
	enabled := strings.Fields(have)
	var missing []string
	for name := range strings.FieldsSeq(controllers) {
		if !slices.Contains(enabled, strings.TrimPrefix(name, "+")) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return writeValue(file, strings.Join(missing, " "))
}

func (g *Cgroup) readV2() (Resources, error) {
	var r Resources
	file := func(name string) string { return g.host.file("", g.rel, name) }
	var swap, weight int64
	swapText, err := textValue(file("memory.swap.max"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	for _, v := range []struct {
		to   *int64
		name string
	}{
		{&r.MemoryLimit, "memory.max"},
		{&r.MemoryReservation, "memory.low"},
		{&weight, "cpu.weight"},
		{&r.PidsLimit, "pids.max"},
	} {
		if *v.to, err = intValue(file(v.name)); err != nil {
			return r, err
		}
	}
	if swapText != "" && swapText != "max" && r.MemoryLimit != 0 {
		if swap, err = parseLimit(file("memory.swap.max"), swapText); err != nil {
			return r, err
		}
		r.MemorySwap = r.MemoryLimit + swap
	}
	r.CPUShares = cpuShares(weight)
	limit, err := textValue(file("cpu.max"))
	if err != nil {
		return r, err
	}
	quota, period, _ := strings.Cut(limit, " ")
	if r.CPUQuota, err = parseLimit(file("cpu.max"), quota); err != nil {
		return r, err
	}
	if r.CPUPeriod, err = parseLimit(file("cpu.max"), period); err != nil {
		return r, err
	}
	// These exist only where the cpuset controller is enabled.
	if r.CpusetCpus, err = textValue(file("cpuset.cpus")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if r.CpusetMems, err = textValue(file("cpuset.mems")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	return r, nil
}

// cpuWeight maps shares (2..262144) to v2's weight (1..10000) as the OCI
// runtimes have done it from the beginning, and cpuShares maps back.
func cpuWeight(shares int64) int64 {
	if shares == 0 {
		return 0
	}
	return 1 + (shares-2)*9999/262142
}

func cpuShares(weight int64) int64 {
	if weight == 0 {
		return 0
	}
	return 2 + ((weight-1)*262142+9998)/9999
}
