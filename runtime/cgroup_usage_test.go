package runtime

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAGroupsUsageIsCounted(t *testing.T) {
	g := realCgroup(t)
	if err := g.Create(Resources{MemoryLimit: 64 << 20, PidsLimit: 50, CPUQuota: 20_000, CPUPeriod: 100_000}); err != nil {
		t.Fatal(err)
	}
	cmd := enter(t, g, "inner", "exec sleep 100")
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	u, err := g.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if u.MemoryLimit != 64<<20 || u.PidsLimit != 50 || u.Pids < 1 || u.PeakMemory < u.Memory || u.OOMKills != 0 {
		t.Errorf("usage %+v", u)
	}
}

func TestWhatAVanishedGroupWasThrottledIsNotForgotten(t *testing.T) {
	for _, version := range []int{1, 2} {
		root := t.TempDir()
		g := newCgroup(&cgroupHost{version: 2, unified: root}, Cgroupfs, "node", "run")
		timeKey, unit := "throttled_usec", int64(1000)
		if version == 1 {
			g.host = &cgroupHost{version: 1, controllers: map[string]string{"cpu": root}}
			timeKey, unit = "throttled_time", 1
		}
		inner := filepath.Join(root, g.rel, "container")
		if err := os.MkdirAll(inner, 0o700); err != nil {
			t.Fatal(err)
		}
		for dir, text := range map[string]string{filepath.Dir(inner): "nr_throttled 2\n" + timeKey + " 7\n", inner: "nr_throttled 5\n" + timeKey + " 9\n"} {
			if err := os.WriteFile(filepath.Join(dir, "cpu.stat"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before, nanos, err := g.throttling(timeKey, unit)
		if err != nil || before != 7 || nanos != 16*unit {
			t.Errorf("version %d: %d, %d, %v", version, before, nanos, err)
		}
		g.remember(&Usage{Throttled: before, ThrottledNanos: nanos})
		if err := os.RemoveAll(inner); err != nil {
			t.Fatal(err)
		}
		u := Usage{Throttled: 2, ThrottledNanos: 7 * unit}
		if g.remember(&u); u.Throttled != 7 || u.ThrottledNanos != 16*unit {
			t.Errorf("version %d: %+v", version, u)
		}
	}
}

func TestUsageIsReadFromTheFilesOfCgroup2(t *testing.T) {
	g := newCgroup(&cgroupHost{version: 2, unified: t.TempDir()}, Cgroupfs, "node", "run")
	dir := filepath.Join(g.host.unified, g.rel)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"memory.current": "5000\n", "memory.stat": "anon 1\ninactive_file 1000\n", "memory.max": "max\n",
		"pids.current": "3\n", "pids.max": "20\n",
		"memory.peak": "7000\n", "memory.events": "oom 1\noom_kill 4\n",
		"cpu.stat": "usage_usec 7\nuser_usec 3\nsystem_usec 4\nnr_throttled 2\nthrottled_usec 9\n",
		"io.stat":  "8:0 rbytes=100 wbytes=20 rios=1 wios=1\n8:16 rbytes=1 wbytes=2 rios=0 wios=0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u, err := g.Usage()
	want := Usage{CPUNanos: 7000, UserNanos: 3000, SystemNanos: 4000, ThrottledNanos: 9000, Throttled: 2, Memory: 4000, PeakMemory: 7000,
		Pids: 3, PidsLimit: 20, ReadBytes: 101, WrittenBytes: 22, OOMKills: 4}
	if err != nil || u != want {
		t.Errorf("usage %+v (%v), want %+v", u, err, want)
	}
}
