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
	if u.MemoryLimit != 64<<20 || u.PidsLimit != 50 || u.Pids < 1 {
		t.Errorf("usage %+v", u)
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
		"cpu.stat": "usage_usec 7\nuser_usec 3\nnr_throttled 2\nthrottled_usec 9\n",
		"io.stat":  "8:0 rbytes=100 wbytes=20 rios=1 wios=1\n8:16 rbytes=1 wbytes=2 rios=0 wios=0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u, err := g.Usage()
	want := Usage{CPUNanos: 7000, ThrottledNanos: 9000, Throttled: 2, Memory: 4000, Pids: 3, PidsLimit: 20, ReadBytes: 101, WrittenBytes: 22}
	if err != nil || u != want {
		t.Errorf("usage %+v (%v), want %+v", u, err, want)
	}
}
