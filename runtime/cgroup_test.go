package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// realCgroup is a group on this host, removed at the end of the test.
func realCgroup(t testing.TB) *Cgroup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make control groups")
	}
	h, err := findCgroupHost()
	if err != nil {
		t.Skip(err)
	}
	g := newCgroup(h, Cgroupfs, fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()), "run")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	return g
}

// enter starts a shell script whose processes are in the group below g.
func enter(t testing.TB, g *Cgroup, child, script string) *exec.Cmd {
	t.Helper()
	var moves strings.Builder
	for _, root := range g.host.roots {
		if g.host.version == 1 && root == g.host.unified {
			continue
		}
		dir := filepath.Join(root, g.rel, child)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&moves, "echo $$ > %s/cgroup.procs\n", dir)
	}
	if g.host.version == 1 {
		if err := fillCpuset(g.host.controllers["cpuset"], filepath.Join(g.rel, child)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/bin/sh", "-c", "set -e\n"+moves.String()+"echo ready\n"+script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatalf("the process could not enter the group: %v", err)
	}
	return cmd
}

func TestLimitsAreInForceAfterCreate(t *testing.T) {
	g := realCgroup(t)
	want := Resources{
		MemoryLimit: 64<<20 + 1, MemoryReservation: 32 << 20, CPUQuota: 50_000, CPUShares: 512, PidsLimit: 33, CpusetCpus: "0", CpusetMems: "0",
	}
	for range 2 { // again, as after a restart
		if err := g.Create(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := g.ReadBack()
	if err != nil {
		t.Fatal(err)
	}
	if got.MemoryLimit != 64<<20 || got.CPUQuota != 50_000 || got.CPUPeriod != 100_000 || got.PidsLimit != 33 || got.CpusetCpus != "0" {
		t.Errorf("got %+v", got)
	}
	want.PidsLimit = 34
	if err := g.Verify(want); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "process limit") {
		t.Errorf("another process limit: got %v", err)
	}
	if peak, err := g.PeakMemory(); err != nil || peak < 0 {
		t.Errorf("peak %d, %v", peak, err)
	}
	if n, err := g.OOMKills(); err != nil || n != 0 {
		t.Errorf("%d OOM kills, %v", n, err)
	}
}

func TestRemoveKillsWhatIsLeftAndLeavesNothing(t *testing.T) {
	g := realCgroup(t)
	if err := g.Create(Resources{}); err != nil {
		t.Fatal(err)
	}
	// A daemon that ignores SIGTERM and whose parent has gone.
	cmd := enter(t, g, "sandbox/deep", "trap '' TERM\nfor i in 1 2 3; do sh -c 'trap \"\" TERM; while :; do sleep 100; done' & done\nwait")
	var wg sync.WaitGroup
	wg.Go(func() { cmd.Wait() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 2 {
		if err := g.Remove(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	for _, root := range g.host.roots {
		if dir := filepath.Dir(filepath.Join(root, g.rel)); exists(dir) {
			t.Errorf("%s is left", dir)
		}
	}
	if _, err := g.ReadBack(); !errors.Is(err, ErrNotFound) {
		t.Errorf("reading a removed group: got %v", err)
	}
}

func TestOutOfMemoryIsCountedAfterTheContainersGroupIsGone(t *testing.T) {
	g := realCgroup(t)
	limit := Resources{MemoryLimit: 32 << 20}
	if err := g.Create(limit); err != nil {
		t.Fatal(err)
	}
	if g.host.version == 1 && exists(g.host.file("memory", g.rel, "memory.memsw.limit_in_bytes")) {
		limit.MemorySwap = limit.MemoryLimit
		if err := g.Create(limit); err != nil {
			t.Fatal(err)
		}
	}
	// tail keeps the last "line" of an endless one in memory.
	cmd := enter(t, g, "container", "exec tail /dev/zero")
	cmd.Wait()
	if err := removeTree(filepath.Dir(g.host.file("memory", filepath.Join(g.rel, "container"), "x"))); err != nil {
		t.Fatal(err)
	}
	n, err := g.OOMKills()
	if err != nil || n < 1 {
		t.Fatalf("%d OOM kills, %v", n, err)
	}
	if again, err := g.OOMKills(); err != nil || again != n {
		t.Errorf("%d OOM kills at the second reading, %v", again, err)
	}
	peak, err := g.PeakMemory()
	if err != nil || peak < 30<<20 || peak > 33<<20 {
		t.Errorf("peak %d, %v", peak, err)
	}
}

func TestManyGroupsOfOneNodeComeAndGoAtOnce(t *testing.T) {
	g := realCgroup(t)
	node := strings.TrimSuffix(g.name, "/run")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				x := newCgroup(g.host, Cgroupfs, node, fmt.Sprint(i, "-", j))
				if err := x.Create(Resources{PidsLimit: 5}); err != nil {
					t.Error(err)
				}
				if err := x.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNamesThatAreNoNamesMakeNoGroup(t *testing.T) {
	h := &cgroupHost{version: 2, unified: t.TempDir()}
	for _, name := range []string{"", "..", ".x", "a/b", "a b", "ä", strings.Repeat("x", 200), "a\nb"} {
		if err := newCgroup(h, Cgroupfs, "node", name).Create(Resources{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v", name, err)
		}
		if err := newCgroup(h, Cgroupfs, name, "run").Remove(t.Context()); err != nil {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestParentHasTheFormOfTheDriver(t *testing.T) {
	h := &cgroupHost{version: 2, unified: "/x"}
	for _, tc := range []struct {
		driver            CgroupDriver
		node, parent, rel string
	}{
		{Cgroupfs, "n-1", "/v6node/n-1/7", "/v6node/n-1/7"},
		{Systemd, "n1", "v6node-n1.7.slice", "/v6node.slice/v6node-n1.7.slice"},
		{Systemd, "n-1", `v6node-n\x2d1.7.slice`, `/v6node.slice/v6node-n\x2d1.7.slice`},
	} {
		g := newCgroup(h, tc.driver, tc.node, "7")
		if g.Parent() != tc.parent || g.rel != tc.rel {
			t.Errorf("%s %s: got %s at %s", tc.driver, tc.node, g.Parent(), g.rel)
		}
		if err := checkCgroupParent("x", tc.driver, g.Parent()); err != nil {
			t.Error(err)
		}
		other := map[CgroupDriver]CgroupDriver{Cgroupfs: Systemd, Systemd: Cgroupfs}[tc.driver]
		if err := checkCgroupParent("x", other, g.Parent()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s accepts %s", other, g.Parent())
		}
	}
}

// fakeV2 is a tree of plain files where the kernel's would be. Only the forms
// of what is written and read can be tested with it.
func fakeV2(t *testing.T, rel string) *cgroupHost {
	t.Helper()
	h := &cgroupHost{version: 2, unified: t.TempDir()}
	h.roots = []string{h.unified}
	at := h.unified
	for _, name := range append([]string{""}, strings.Split(strings.Trim(rel, "/"), "/")...) {
		at = filepath.Join(at, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{
			"cgroup.subtree_control": "cpu", "cpu.max": "max 100000", "cpu.weight": "100", "memory.max": "max", "memory.low": "0",
			"memory.swap.max": "max", "pids.max": "max", "cpuset.cpus": "", "cpuset.mems": "",
			"memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", "memory.peak": "12345",
		} {
			if err := os.WriteFile(filepath.Join(at, file), []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return h
}

// Plain files keep the tail of a longer text before: truncate as the kernel does.
func truncateOnWrite(t *testing.T, h *cgroupHost, rel string, files ...string) {
	t.Helper()
	for _, f := range files {
		if err := os.Truncate(filepath.Join(h.unified, rel, f), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestV2FilesAreWrittenAndReadInTheirForms(t *testing.T) {
	const rel = "/v6node/n/7"
	h := fakeV2(t, rel)
	g := newCgroup(h, Cgroupfs, "n", "7")
	got, err := g.ReadBack()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Resources{CPUPeriod: 100_000, CPUShares: cpuShares(100)}); got != want {
		t.Errorf("without limits: got %+v", got)
	}
	truncateOnWrite(t, h, rel, "cpu.max", "cpu.weight", "memory.max", "memory.low", "memory.swap.max", "pids.max")
	r := Resources{MemoryLimit: 1 << 30, MemorySwap: 3 << 29, MemoryReservation: 1 << 20, CPUQuota: 150_000, CPUShares: 1024, PidsLimit: 100, CpusetCpus: "0-1", CpusetMems: "0"}
	if err := g.Create(r); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"memory.max": "1073741824", "memory.swap.max": "536870912", "memory.low": "1048576", "cpu.max": "150000 100000",
		"cpu.weight": "39", "pids.max": "100", "cpuset.cpus": "0-1", "cpuset.mems": "0",
	} {
		if text, err := textValue(filepath.Join(h.unified, rel, file)); err != nil || text != want {
			t.Errorf("%s: got %q, %v", file, text, err)
		}
	}
	if text, err := textValue(filepath.Join(h.unified, "v6node", "cgroup.subtree_control")); err != nil || !strings.Contains(text, "+") {
		t.Errorf("controllers are not handed on: %q, %v", text, err)
	}
	if n, err := g.OOMKills(); err != nil || n != 2 {
		t.Errorf("%d OOM kills, %v", n, err)
	}
	if n, err := g.PeakMemory(); err != nil || n != 12345 {
		t.Errorf("peak %d, %v", n, err)
	}
}

func TestSharesSurviveTheWayToWeightAndBack(t *testing.T) {
	for _, shares := range []int64{2, 3, 512, 1024, 2048, 100_000, 262_144} {
		w := cpuWeight(shares)
		if w < 1 || w > 10_000 || cpuWeight(cpuShares(w)) != w {
			t.Errorf("%d shares: weight %d, back %d", shares, w, cpuShares(w))
		}
	}
}

func TestTheHostsHierarchiesAreReadFromTheMountTable(t *testing.T) {
	v1 := `24 1 0:21 / /sys/fs/cgroup ro - tmpfs tmpfs ro
25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
26 24 0:23 / /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory
27 24 0:24 / /sys/fs/cgroup/with\040space rw - cgroup cgroup rw,pids
28 24 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
29 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
garbage`
	h, err := parseCgroupHost(strings.NewReader(v1))
	if err != nil {
		t.Fatal(err)
	}
	if h.version != 1 || h.controllers["cpu"] != "/sys/fs/cgroup/cpu,cpuacct" || h.controllers["pids"] != "/sys/fs/cgroup/with space" || len(h.roots) != 5 {
		t.Errorf("got %+v", h)
	}
	h, err = parseCgroupHost(strings.NewReader("29 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"))
	if err != nil || h.version != 2 || h.unified != "/sys/fs/cgroup" {
		t.Errorf("got %+v, %v", h, err)
	}
	if _, err := parseCgroupHost(strings.NewReader("")); err == nil {
		t.Error("a host without control groups is accepted")
	}
}

func FuzzParseCgroupHost(f *testing.F) {
	f.Add("25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
	f.Add(`29 24 0:26 / /x\134\040 rw - cgroup2 cgroup2 rw`)
	f.Fuzz(func(t *testing.T, in string) {
		h, err := parseCgroupHost(strings.NewReader(in))
		if err == nil && h.version != 1 && h.version != 2 {
			t.Fatalf("version %d", h.version)
		}
	})
}

func FuzzCPUSet(f *testing.F) {
	f.Add("0-3,7", "7,0,1,2,3")
	f.Add("0-999999999999", "x")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(cpuSet(a)) > maxCPU {
			t.Fatal("a set without bound")
		}
		if sameCPUs(a, b) != sameCPUs(b, a) {
			t.Fatal("not symmetric")
		}
	})
}

func BenchmarkCgroup(b *testing.B) {
	g := realCgroup(b)
	for b.Loop() {
		if err := g.Create(Resources{MemoryLimit: 1 << 30, PidsLimit: 100, CPUQuota: 100_000}); err != nil {
			b.Fatal(err)
		}
		if err := g.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
