package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAContainerMustBeBelowItsRunsGroupForEveryController(t *testing.T) {
	const run = "/v6node/n/run7"
	v1 := func(memory, cpu, cpuset, pids string) string {
		return fmt.Sprintf("9:name=systemd:/\n5:memory:%s\n4:cpu,cpuacct:%s\n3:cpuset:%s\n2:pids:%s\n0::/\n", memory, cpu, cpuset, pids)
	}
	for _, c := range []struct {
		version    int
		text, want string // want is the group, or words of the error after "!"
	}{
		{1, v1(run+"/c", run+"/c", run+"/c", run+"/c"), run + "/c"},
		{1, v1(run+"/c", run+"/c", run+"/c", "/"), "!pids group /, which is not below"},
		{1, v1(run, run+"/c", run+"/c", run+"/c"), "!memory group"},
		{1, v1(run+"8/c", run+"8/c", run+"8/c", run+"8/c"), "!not below"},
		{1, v1(run+"/c", run+"/d", run+"/c", run+"/c"), "!in the groups"},
		{1, "5:memory:" + run + "/c\n", "!no cpu group"},
		{2, "0::" + run + "/c/sub\n", run + "/c/sub"},
		{2, "0::/elsewhere\n", "!not below"},
		{2, "", "!no  group"},
	} {
		g := newCgroup(&cgroupHost{version: c.version}, Cgroupfs, "n", "run7")
		got, err := g.groupOf(c.text)
		if words, bad := strings.CutPrefix(c.want, "!"); bad && (err == nil || !strings.Contains(err.Error(), words)) || !bad && (err != nil || got != c.want) {
			t.Errorf("%q: %q, %v, want %s", c.text, got, err, c.want)
		}
	}
}

func TestAContainersLimitsMayBeOnAGroupAroundIt(t *testing.T) {
	const run = "/v6node/n/7"
	h := fakeV2(t, run+"/container/inner")
	g := newCgroup(h, Cgroupfs, "n", "7")
	set := func(rel, file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(h.unified, rel, file), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := Resources{MemoryLimit: 64 << 20, CPUShares: 512}
	set(run, "memory.max", "67108864") // the run's own does not count
	if err := g.verifyBelow(run+"/container/inner", want); !errors.Is(err, ErrLimit) {
		t.Errorf("without limits: %v", err)
	}
	set(run+"/container", "memory.max", "67108864")
	for weight, ok := range map[int64]bool{20: true, newCPUWeight(512): true, 21: false} {
		set(run+"/container", "cpu.weight", fmt.Sprint(weight))
		if err := g.verifyBelow(run+"/container/inner", want); (err == nil) != ok {
			t.Errorf("weight %d: %v", weight, err)
		}
	}
}

func TestNewWeightsMeetTheThreePoints(t *testing.T) {
	for shares, want := range map[int64]int64{2: 1, 1024: 100, 262144: 10000, 512: 59, 2048: 174} {
		if got := newCPUWeight(shares); got != want {
			t.Errorf("%d shares are %d, want %d", shares, got, want)
		}
	}
}

func TestResourceLimitsAreCompared(t *testing.T) {
	have := []Rlimit{{"RLIMIT_NOFILE", 10, 20}, {"RLIMIT_CORE", 0, RlimitInfinity}}
	if err := VerifyRlimits([]Rlimit{{"RLIMIT_CORE", 0, RlimitInfinity}}, have); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		want Rlimit
		says string
	}{
		{Rlimit{"RLIMIT_NOFILE", 10, 21}, "RLIMIT_NOFILE should be 10:21 but is 10:20"},
		{Rlimit{"RLIMIT_CORE", 0, 0}, "should be 0:0 but is 0:unlimited"},
		{Rlimit{"RLIMIT_STACK", 5, 5}, "does not set RLIMIT_STACK"},
	} {
		if err := VerifyRlimits([]Rlimit{c.want}, have); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.want, err)
		}
	}
}

func TestAProcessOutsideOrGoneIsToldApart(t *testing.T) {
	g := realCgroup(t)
	if err := g.Create(Resources{}); err != nil {
		t.Fatal(err)
	}
	if err := g.VerifyProcess(os.Getpid(), Resources{}, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("a process outside: %v", err)
	}
	if err := g.VerifyProcess(1<<30, Resources{}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no process: %v", err)
	}
}

func TestUnlimitedSwapIsAskedForAndChecked(t *testing.T) {
	const rel = "/v6node/n/7"
	h := fakeV2(t, rel)
	g := newCgroup(h, Cgroupfs, "n", "7")
	want := Resources{MemoryLimit: 64 << 20, MemorySwap: NoSwapLimit}
	if err := want.check("x"); err != nil {
		t.Error(err)
	}
	truncateOnWrite(t, h, rel, "memory.max", "memory.swap.max")
	if err := g.createV2(want); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(h.unified, rel, "memory.swap.max")); err != nil || string(b) != "max" {
		t.Errorf("%q, %v", b, err)
	}
	if err := g.Verify(want); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(h.unified, rel, "memory.swap.max"), []byte("5"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Verify(want); !errors.Is(err, ErrLimit) {
		t.Errorf("limited all the same: %v", err)
	}
	if err := (Resources{MemoryLimit: 1, MemorySwap: -2}).check("x"); err == nil {
		t.Error("-2 is accepted")
	}
}

func TestHardLimitsAreReadAsTheKernelWritesThem(t *testing.T) {
	const text = "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max cpu time              unlimited            unlimited            seconds   \n" +
		"Max processes             10                   96365                processes \n" +
		"Max nice priority         0                    7                    \n" +
		"Max open files            \n"
	for label, want := range map[string]uint64{"Max cpu time": RlimitInfinity, "Max processes": 96365, "Max nice priority": 7} {
		if got, err := hardLimit(text, label); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", label, got, err, want)
		}
	}
	for _, label := range []string{"Max open files", "Max open", "Max locked memory"} {
		if got, err := hardLimit(text, label); err == nil {
			t.Errorf("%s: %d", label, got)
		}
	}
	own, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	for kind, label := range rlimits {
		if _, err := hardLimit(string(own), label); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
