package admission

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

func files(content map[string]string) fstest.MapFS {
	m := fstest.MapFS{
		"proc/meminfo":                {Data: []byte("MemTotal:       16777216 kB\nMemFree:         1000 kB\n")},
		"proc/sys/kernel/pid_max":     {Data: []byte("32768\n")},
		"proc/sys/kernel/threads-max": {Data: []byte("190000\n")},
	}
	for name, text := range content {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestTheCapacityIsTheMachinesOrThatOfTheCgroupAboveTheNode(t *testing.T) {
	v1 := map[string]string{
		"proc/self/cgroup": "8:pids:/node\n4:memory:/system/node\n1:cpu,cpuacct:/node\n0::/\n",
		"proc/self/mountinfo": "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n" +
			"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n" +
			"39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
	}
	with := func(base map[string]string, more ...string) map[string]string {
		m := make(map[string]string)
		for k, v := range base {
			m[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	v2 := map[string]string{
		"proc/self/cgroup":    "0::/system.slice/v6node.service\n",
		"proc/self/mountinfo": "25 20 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
	}
	const unset = "9223372036854771712\n"
	for name, tt := range map[string]struct {
		files  map[string]string
		want   Resources
		source string // of the memory
	}{
		"no cgroup": {nil, Resources{Memory: 16 * gib, MilliCPUs: 4000, Pids: 32768}, "/proc/meminfo"},
		"v1 without limits": {with(v1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes", unset, "sys/fs/cgroup/memory/system/node/memory.limit_in_bytes", unset,
			"sys/fs/cgroup/cpu,cpuacct/node/cpu.cfs_quota_us", "-1\n", "sys/fs/cgroup/cpu,cpuacct/node/cpu.cfs_period_us", "100000\n",
			"sys/fs/cgroup/pids/node/pids.max", "max\n"), Resources{Memory: 16 * gib, MilliCPUs: 4000, Pids: 32768}, "/proc/meminfo"},
		"v1 with limits above and on the node": {with(v1,
			"sys/fs/cgroup/memory/system/memory.limit_in_bytes", "4294967296\n", "sys/fs/cgroup/memory/system/node/memory.limit_in_bytes", unset,
			"sys/fs/cgroup/cpu,cpuacct/node/cpu.cfs_quota_us", "150000\n", "sys/fs/cgroup/cpu,cpuacct/node/cpu.cfs_period_us", "100000\n",
			"sys/fs/cgroup/pids/node/pids.max", "512\n"), Resources{Memory: 4 * gib, MilliCPUs: 1500, Pids: 512}, "/sys/fs/cgroup/memory/system/memory.limit_in_bytes"},
		"v2 with limits of the slice and the service": {with(v2,
			"sys/fs/cgroup/system.slice/memory.max", "8589934592\n", "sys/fs/cgroup/system.slice/v6node.service/memory.max", "max\n",
			"sys/fs/cgroup/system.slice/v6node.service/cpu.max", "200000 100000\n", "sys/fs/cgroup/system.slice/cpu.max", "max 100000\n",
			"sys/fs/cgroup/system.slice/v6node.service/pids.max", "1000\n"), Resources{Memory: 8 * gib, MilliCPUs: 2000, Pids: 1000}, "/sys/fs/cgroup/system.slice/memory.max"},
		"a container that sees a part of the hierarchy": {map[string]string{
			"proc/self/cgroup":             "0::/docker/abc/inner\n",
			"proc/self/mountinfo":          "25 20 0:23 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/memory.max":     "2147483648\n",
			"sys/fs/cgroup/inner/pids.max": "99\n",
		}, Resources{Memory: 2 * gib, MilliCPUs: 4000, Pids: 99}, "/sys/fs/cgroup/memory.max"},
		"nonsense": {with(v2, "sys/fs/cgroup/memory.max", "many\n", "sys/fs/cgroup/cpu.max", "1 0\n", "sys/fs/cgroup/pids.max", "-5\n"),
			Resources{Memory: 16 * gib, MilliCPUs: 4000, Pids: 32768}, "/proc/meminfo"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := capacity(files(tt.files), 4)
			if err != nil {
				t.Fatal(err)
			}
			if c.Memory != tt.want.Memory || c.MilliCPUs != tt.want.MilliCPUs || c.Pids != tt.want.Pids || c.Source["memory"] != tt.source {
				t.Fatalf("got %+v, want %+v from %s", c, tt.want, tt.source)
			}
		})
	}
}

func TestWithoutMeminfoTheAdministratorIsAskedForABudget(t *testing.T) {
	_, err := capacity(fstest.MapFS{}, 4)
	if err == nil || !strings.Contains(err.Error(), "set the budget in the configuration") {
		t.Fatal(err)
	}
}

func TestTheDefaultBudgetKeepsAReserve(t *testing.T) {
	for _, tt := range []struct {
		have   Resources
		memory int64
		runs   int64
	}{
		{Resources{Memory: 24 * gib, MilliCPUs: 2000, Pids: 32768}, 24*gib - 24*gib/10, 8},
		{Resources{Memory: 512 * gib, MilliCPUs: 64000, Pids: 32768}, 508 * gib, 100},
		{Resources{Memory: gib, MilliCPUs: 4000, Pids: 32768}, gib - gib/4, 3},
		{Resources{Memory: gib / 4, MilliCPUs: 1000, Pids: 100}, gib / 8, 2},
	} {
		b, err := Capacity{Resources: tt.have}.Budget(nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.Memory != tt.memory || b.Runs != tt.runs || b.Pids != tt.have.Pids-tt.have.Pids/10 || b.MilliCPUs != tt.have.MilliCPUs {
			t.Errorf("of %+v: %+v", tt.have, b)
		}
		if err := b.Validate(); err != nil {
			t.Error(err)
		}
	}
	_, err := Capacity{Resources: Resources{Memory: gib, MilliCPUs: 1000, Pids: 100}}.Budget(&Resources{Memory: 2 * gib})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "leaves no memory of the 1.0 GiB") {
		t.Fatal(err)
	}
}

func TestThisMachineHasABudget(t *testing.T) {
	c, err := Machine()
	if err != nil {
		t.Skip(err) // not Linux, or no /proc
	}
	b, err := c.Budget(nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.Memory <= 0 || b.MilliCPUs <= 0 || b.Pids <= 0 || b.Runs < 2 {
		t.Fatalf("%+v", b)
	}
	t.Logf("capacity %+v, budget %+v", c, b)
}

// FuzzMachineFiles feeds the parsers of what the kernel reports.
func FuzzMachineFiles(f *testing.F) {
	f.Add("0::/a\n", "25 20 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "100 100\n")
	f.Add("4:memory,cpu:/a/b\n", "25 20 0:23 /a /sys/fs/cgroup/x\\040y rw - cgroup cgroup rw,memory\n", "max")
	f.Add("0::/../..\n:::\n", "- cgroup2\n1 2 3 4 .. - cgroup2 x y\n", "")
	f.Fuzz(func(t *testing.T, own, mounts, limit string) {
		c, err := capacity(files(map[string]string{
			"proc/self/cgroup": own, "proc/self/mountinfo": mounts,
			"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/cpu.max": limit, "sys/fs/cgroup/a/pids.max": limit,
		}), 4)
		if err != nil {
			t.Fatal(err)
		}
		if c.Memory <= 0 || c.Memory > 16*gib || c.MilliCPUs <= 0 || c.MilliCPUs > 4000 || c.Pids <= 0 || c.Pids > 32768 {
			t.Fatalf("%+v", c)
		}
	})
}
