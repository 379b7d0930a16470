package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// ErrLimit means that a limit could not be applied as asked.
var ErrLimit = errors.New("a limit could not be applied")

// Cgroup is the control group of one run: the parent of everything that the
// runtime starts for it. CRI cannot express all limits and some runtimes drop
// what they cannot do, so sandbox and containers are bounded together here, in
// the host's own files. It works where node and runtime share the host and its
// control groups.
//
// The order is Create, RunSandbox with Parent, ..., RemoveSandbox, Remove. The
// methods are safe for concurrent use.
type Cgroup struct {
	host   *cgroupHost
	driver CgroupDriver
	call   systemdCaller

	name   string // node/run, for messages
	parent string // what CRI takes
	rel    string // the path below each hierarchy
	bad    error  // why the names cannot be used

	mu    sync.Mutex
	oom   *os.File // cgroup v1: counts out-of-memory events
	kills int64    // read from oom so far
	// throttled and its time are the most that Usage has seen.
	throttled, throttledNanos int64
}

// errNoCgroup is why nothing is known of a run where there are no control groups.
var errNoCgroup = errors.New("the node has no control groups here")

// cgroupTop is the name below which all control groups of v6node are.
const cgroupTop = "v6node"

// topShares is the weight of all runs together against everything else on the
// machine, where 1024 is usual; topWeight is the same on cgroup v2, where 100 is.
// It counts only when the CPUs are busy: then the node, its runtime and the
// machine's other services go first. Whoever wants it otherwise changes it in the
// group, which keeps it as long as there are runs.
const (
	topShares = 128
	topWeight = 12
)

var cgroupName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`)

// Cgroup returns the control group of a run of a node, without touching it:
// /v6node/<node>/<run> below Options.CgroupBase, or v6node-<node>.<run>.slice
// where the runtime uses systemd. The names may have letters, digits and _.- in them; others make
// Create fail.
func (c *Client) Cgroup(node, run string) *Cgroup {
	return newCgroup(c.host, c.info.Load().CgroupDriver, node, run)
}

func newCgroup(host *cgroupHost, driver CgroupDriver, node, run string) *Cgroup {
	g := &Cgroup{host: host, driver: driver, name: node + "/" + run, call: systemdBus{}}
	for _, n := range []string{node, run} {
		if !cgroupName.MatchString(n) {
			g.bad = invalid("make the control group of "+g.name, "%q is not a name of letters, digits and _.-", n)
		}
	}
	if driver == Systemd {
		// In a slice's name "-" separates levels; \x2d is systemd's own way
		// to write one that does not. There is no level for the node: its
		// slice would stay when its runs have ended.
		escape := strings.NewReplacer("-", `\x2d`, ".", `\x2e`)
		g.parent = cgroupTop + "-" + escape.Replace(node) + "." + escape.Replace(run) + ".slice"
		g.rel = path.Join("/", cgroupTop+".slice", g.parent)
		return g
	}
	g.rel = path.Join("/", host.base, cgroupTop, node, run)
	g.parent = g.rel
	return g
}

// Parent is the value for SandboxSpec.CgroupParent.
func (g *Cgroup) Parent() string { return g.parent }

// checkCgroupParent refuses a parent in the form of the other driver: the
// runtimes would fail later and less clearly, or escape the limits.
func checkCgroupParent(op string, driver CgroupDriver, parent string) error {
	slice := strings.HasSuffix(parent, ".slice")
	switch {
	case parent == "":
		return invalid(op, "it has no control group; create one with Client.Cgroup")
	case driver == Systemd && (!slice || strings.Contains(parent, "/")):
		return invalid(op, "the runtime uses the systemd cgroup driver, which takes a slice such as v6node-1.2.slice and not %q", parent)
	case driver == Cgroupfs && (slice || !path.IsAbs(parent) || path.Clean(parent) != parent || parent == "/"):
		return invalid(op, "the runtime uses the cgroupfs driver, which takes a path such as /v6node/1/2 and not %q", parent)
	}
	return nil
}

// Create makes the control group and applies the limits, then reads them back:
// a limit that is not in force afterwards is the error ErrLimit. It may be
// called again, also by another process after a restart; the limits are then
// applied anew. After an error Remove clears up.
func (g *Cgroup) Create(r Resources) error {
	op := "make the control group of " + g.name
	if g.bad != nil {
		return g.bad
	}
	if err := r.check(op); err != nil {
		return err
	}
	r = r.normal()
	if g.host.none {
		return g.Verify(r)
	}
	if g.driver == Systemd {
		if err := g.call.startSlice(context.Background(), g.parent, r, g.host.version); err != nil {
			return &Error{Op: op, Cause: err, text: "systemd refused the slice " + g.parent + " (" + oneLine(err.Error()) + ")"}
		}
	}
	// Another run's Remove may take an empty parent away between two steps.
	var err error
	for range 10 {
		if err = g.create(r); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		e := &Error{Op: op, Kind: ErrLimit, Cause: err}
		if errors.Is(err, fs.ErrPermission) {
			e.text = oneLine(err.Error()) + "; run as root, or have the control groups delegated to this user"
		}
		return e
	}
	return g.Verify(r)
}

func (g *Cgroup) create(r Resources) error {
	if g.host.version == 2 {
		return g.createV2(r)
	}
	return g.createV1(r)
}

// ReadBack returns the limits that are in force, zero for none. OOMScoreAdj is
// not one of a control group and stays nil.
func (g *Cgroup) ReadBack() (Resources, error) {
	var r Resources
	var err error
	if g.host.none {
		return r, nil
	}
	if g.host.version == 2 {
		r, err = g.readV2()
	} else {
		r, err = g.readV1()
	}
	if err != nil {
		return Resources{}, g.readError("read the limits of", err)
	}
	return r, nil
}

// Verify compares the limits in force with those wanted. The kernel rounds
// memory down to whole pages; any other difference is the error ErrLimit.
func (g *Cgroup) Verify(want Resources) error {
	want = want.normal()
	got, err := g.ReadBack()
	if err != nil {
		return err
	}
	if want.MemorySwap == NoSwapLimit {
		if got.MemorySwap != 0 {
			return &Error{Op: "limit the run " + g.name, Kind: ErrLimit, text: fmt.Sprintf("memory and swap together should not be limited but are, to %d", got.MemorySwap)}
		}
		want.MemorySwap = 0
	}
	page := int64(os.Getpagesize())
	differ := func(what string, want, got any) error {
		if g.host.none {
			return &Error{Op: "limit the run " + g.name, Kind: ErrLimit, text: fmt.Sprintf("there is no control group for the %s of %v", what, want)}
		}
		return &Error{Op: "limit the run " + g.name, Kind: ErrLimit,
			text: fmt.Sprintf("the %s should be %v but is %v; is the controller enabled and delegated?", what, want, got)}
	}
	for _, m := range []struct {
		what      string
		want, got int64
	}{
		{"memory limit", want.MemoryLimit, got.MemoryLimit},
		{"limit of memory and swap", want.MemorySwap, got.MemorySwap},
		{"memory reservation", want.MemoryReservation, got.MemoryReservation},
	} {
		if m.want != 0 && m.got != m.want && m.got != m.want/page*page {
			return differ(m.what, m.want, m.got)
		}
	}
	switch {
	case want.CPUQuota != 0 && want.CPUQuota*got.CPUPeriod != got.CPUQuota*want.CPUPeriod:
		return differ("CPU quota per period", fmt.Sprintf("%d/%d", want.CPUQuota, want.CPUPeriod), fmt.Sprintf("%d/%d", got.CPUQuota, got.CPUPeriod))
	case want.CPUShares != 0 && g.host.version == 1 && want.CPUShares != got.CPUShares,
		want.CPUShares != 0 && g.host.version == 2 && cpuWeight(want.CPUShares) != cpuWeight(got.CPUShares):
		return differ("CPU shares", want.CPUShares, got.CPUShares)
	case want.PidsLimit != 0 && want.PidsLimit != got.PidsLimit:
		return differ("process limit", want.PidsLimit, got.PidsLimit)
	case want.CpusetCpus != "" && !sameCPUs(want.CpusetCpus, got.CpusetCpus):
		return differ("CPU set", want.CpusetCpus, got.CpusetCpus)
	case want.CpusetMems != "" && !sameCPUs(want.CpusetMems, got.CpusetMems):
		return differ("memory node set", want.CpusetMems, got.CpusetMems)
	}
	return nil
}

// OOMKills says how often the kernel has killed for want of memory in this
// group. It can be read until Remove, also after the containers are gone.
//
// On cgroup v2 that is the group's own counter. Cgroup v1 counts only in the
// group of the killed process, which the runtime removes with the container;
// there the number is that of the out-of-memory events at this group's limit
// since Create, plus what the groups that still exist have counted beyond that.
func (g *Cgroup) OOMKills() (int64, error) {
	if g.host.none {
		return 0, g.readError("read the out-of-memory counter of", errNoCgroup)
	}
	var n int64
	var err error
	if g.host.version == 2 {
		n, err = keyedValue(g.host.file("", g.rel, "memory.events"), "oom_kill")
	} else {
		n, err = g.oomKillsV1()
	}
	if err != nil {
		return 0, g.readError("read the out-of-memory counter of", err)
	}
	return n, nil
}

// WatchOOM makes OOMKills count in a group that an earlier process has made. In
// one that this Cgroup has made it does so already. It may be called again.
func (g *Cgroup) WatchOOM() error {
	if g.host.none || g.host.version == 2 {
		return nil // the kernel keeps the count
	}
	if err := g.watchOOMV1(); err != nil {
		return g.readError("watch the out-of-memory events of", err)
	}
	return nil
}

// Processes returns the processes in the group and below it.
func (g *Cgroup) Processes() ([]int, error) {
	if g.host.none {
		return nil, g.readError("list the processes of", errNoCgroup)
	}
	pids, err := g.processes()
	if err != nil {
		return nil, g.readError("list the processes of", err)
	}
	return pids, nil
}

// PeakMemory returns the most memory in bytes that the group has used, page
// cache included.
func (g *Cgroup) PeakMemory() (int64, error) {
	if g.host.none {
		return 0, g.readError("read the memory peak of", errNoCgroup)
	}
	file := g.host.file("memory", g.rel, "memory.max_usage_in_bytes")
	if g.host.version == 2 {
		file = g.host.file("", g.rel, "memory.peak") // since Linux 5.19
	}
	n, err := intValue(file)
	if err != nil {
		return 0, g.readError("read the memory peak of", err)
	}
	return n, nil
}

func (g *Cgroup) readError(what string, err error) error {
	e := &Error{Op: what + " the control group of " + g.name, Cause: err}
	// ENODEV is what an open file of a group says that is removed meanwhile.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		e.Kind = ErrNotFound
	}
	return e
}

// Remove kills what is left in the group, waits for its end, and removes the
// group with all groups in it, and those above it that have become empty. One
// that is gone is no error. It gives up when ctx ends, and may be called again.
func (g *Cgroup) Remove(ctx context.Context) error {
	if g.bad != nil || g.host.none {
		return nil
	}
	op := "remove the control group of " + g.name
	g.closeOOM()
	if g.driver == Systemd {
		if err := g.call.stopSlice(ctx, g.parent); err != nil {
			return &Error{Op: op, Cause: err, text: "systemd could not stop the slice " + g.parent + " (" + oneLine(err.Error()) + ")"}
		}
	}
	for {
		left, err := g.kill(ctx)
		if err != nil {
			return &Error{Op: op, Cause: err, text: fmt.Sprintf("process %d in it could not be ended (%s)", left, oneLine(err.Error()))}
		}
		// A process that has just ended may keep its group busy a moment
		// longer, and one may have been forked during the kill.
		if err = g.removeAll(); err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTEMPTY) {
			return &Error{Op: op, Cause: err}
		}
		if !pause(ctx, removeRetry) {
			return &Error{Op: op, Cause: ctx.Err(), text: oneLine(err.Error())}
		}
	}
}

// removeAll removes the group in every hierarchy, children first.
func (g *Cgroup) removeAll() error {
	for _, root := range g.host.roots {
		dir := filepath.Join(root, g.rel)
		if err := removeTree(dir); err != nil {
			return err
		}
		if g.driver == Systemd {
			continue // the slices above belong to systemd
		}
		top := filepath.Join(root, g.host.base)
		for up := filepath.Dir(dir); up != top && strings.HasPrefix(up, top+"/"); up = filepath.Dir(up) {
			if os.Remove(up) != nil {
				break
			}
		}
	}
	return nil
}

// removeTree removes directories only: the files of a control group go with it.
func removeTree(dir string) error {
	err := syscall.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil {
		if errors.Is(readErr, fs.ErrNotExist) {
			return nil
		}
		return readErr
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// sameCPUs compares two lists such as 0-2 and 0,1,2.
func sameCPUs(a, b string) bool {
	x, y := cpuSet(a), cpuSet(b)
	if len(x) != len(y) {
		return false
	}
	for n := range x {
		if !y[n] {
			return false
		}
	}
	return true
}

// maxCPU bounds a list: the kernel is built for 8192 at most.
const maxCPU = 8192

func cpuSet(list string) map[int]bool {
	set := map[int]bool{}
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil {
			continue
		}
		for n := a; n <= b && n < maxCPU; n++ {
			set[n] = true
		}
	}
	return set
}
