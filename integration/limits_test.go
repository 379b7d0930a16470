//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/runtime"
)

// limited are the limits that the scenarios need: one image of its own for each,
// named by a rule of one node.
var limited = map[string]map[string]any{
	"memory":  {"memory": "64m"},
	"cpus":    {"cpus": 0.1}, // so little that a busy machine gives it all of it
	"pids":    {"pids": 40, "timeout": "10s", "memory": "1g"},
	"cpuset":  {"cpuset_cpus": "0"},
	"shm":     {"shm_size": "1m", "tmpfs_size": "2m"},
	"ulimit":  {"ulimits": []string{"nofile=77:99", "core=0"}},
	"output":  {"output_size": "2m"},
	"log":     {"log_size": "1m"},
	"scratch": {"scratch_size": "4m", "output_size": "1m"},
	"timeout": {"timeout": "2s"},
	"score":   {"oom_score_adj": 321, "memory": "96m", "memory_swap": "96m", "cpu_shares": 512, "cpus": 1.5, "pids": 100},
}

// deviceKind is that of a device of this process alone: two files that describe
// the same device make it unusable.
var deviceKind = fmt.Sprintf("vendor.example/v6node-test-%d", os.Getpid())

const deviceInside = "v6node-test-device"

// limitedNode is a node with the rules, and the images that they name.
type limitedNode struct {
	*node
	images map[string]string
}

func TestLimitsHoldInRealContainers(t *testing.T) {
	giveDevice(t)
	n, other := startLimited(t, embeddedKind)
	n.expectCgroups(t)
	t.Run("while another algorithm runs", func(t *testing.T) {
		for name, run := range map[string]func(*testing.T, limitedNode){
			"a memory hog is killed, and why is said":               memoryHog,
			"a child that hogs memory is killed, and it is said":    memoryHogChild,
			"a tenth of a CPU is a tenth of a CPU":                  tenthOfCPU,
			"a fork bomb stays within its processes":                forkBomb,
			"a CPU set binds":                                       cpuSet,
			"shared memory and tmpfs have their size":               inMemory,
			"a flooded log keeps its beginning and its end":         logFlood,
			"ulimits hold from the first instruction":               ulimits,
			"what lies beside the output is bounded":                besideOutput,
			"the scratch is bounded":                                scratchBound,
			"deleted files count":                                   deletedFiles,
			"an algorithm that ignores SIGTERM ends at its timeout": timeoutOfTheDeaf,
			"limits are on the group and on the container":          bothGroups,
			"a device is given":                                     device,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, n)
			})
		}
	})
	other.undisturbed(t)
	t.Run("a run waits for a device", func(t *testing.T) { waitsForDevice(t, n) })
	t.Run("a runtime that takes no ulimits", func(t *testing.T) { foreignUlimits(t, n) })
	t.Run("what the machine cannot hold ends the start", func(t *testing.T) { impossible(t, n.w) })
}

func TestLimitsHoldWithoutRoot(t *testing.T) { limitsHoldWithoutRoot(t, rootlessKind) }

func TestLimitsHoldWithOneUserID(t *testing.T) { limitsHoldWithoutRoot(t, oneIDKind) }

func limitsHoldWithoutRoot(t *testing.T, k kind) {
	n, other := startLimited(t, k)
	n.expectCgroups(t)
	for name, run := range map[string]func(*testing.T, limitedNode){
		"a memory hog is killed, and why is said":            memoryHog,
		"a child that hogs memory is killed, and it is said": memoryHogChild,
		"a tenth of a CPU is a tenth of a CPU":               tenthOfCPU,
		"a fork bomb stays within its processes":             forkBomb,
		"a CPU set binds":                                    cpuSet,
		"shared memory and tmpfs have their size":            inMemory,
		"ulimits hold from the first instruction":            ulimits,
		"limits are on the group and on the container":       bothGroups,
	} {
		t.Run(name, func(t *testing.T) { run(t, n) })
	}
	other.undisturbed(t)
}

// startLimited starts a node with the rules, and an algorithm that runs on while
// others reach their limits.
func startLimited(t *testing.T, k kind) (limitedNode, *gate) {
	t.Helper()
	w := newWorld(t, k)
	images := map[string]string{}
	var rules []map[string]any
	for name, l := range limited {
		images[name] = w.push(t, "limits/"+name).Tag
		rules = append(rules, map[string]any{"image": images[name], "limits": l})
	}
	images["device"] = w.push(t, "limits/device").Tag
	rules = append(rules, map[string]any{"image": images["device"], "limits": map[string]any{"devices": deviceKind + ":1"}})
	n := limitedNode{w.start(t, nodeOptions{Extra: map[string]any{
		"limit_rules": rules, "stop_grace": "200ms",
		// Larger than this machine, so that no scenario waits for another.
		"resources": w.resources(map[string]any{"memory": "1t", "cpus": 512, "pids": 1_000_000, "runs": 500}),
	}}), images}
	return n, n.hold(t)
}

func (n limitedNode) order(name string) order { return image(n.images[name]) }

func logFlood(t *testing.T, n limitedNode) {
	const lines = 300_000
	done := n.call(t, "spam", kwargs{"lines": lines}, n.order("log"))
	completed[map[string]int](t, done)
	var dropped, want int64
	head, tail, found := strings.Cut(done.Text, "\n[... ")
	if _, err := fmt.Sscanf(tail, "%d bytes of log left out", &dropped); err != nil || !found {
		t.Fatalf("%d bytes of log say nothing of a gap: %v", len(done.Text), err)
	}
	for i := range lines {
		want += int64(len(fmt.Sprintf("line %d ", i))) + 61
	}
	_, tail, _ = strings.Cut(tail, " ...]\n")
	if got := int64(len(head)+len(tail)) + dropped; got != want {
		t.Errorf("%d bytes sent and %d left out, of %d", len(head)+len(tail), dropped, want)
	}
	// A log is cut when the node has looked at it, so what came after the last look is kept whole, within
	// what is sent of any log.
	if !strings.HasPrefix(head, "line ") || !strings.Contains(tail, fmt.Sprintf("line %d ", lines-1)) || len(head)+len(tail) > 4<<20 {
		t.Errorf("%d bytes of beginning and %d of end", len(head), len(tail))
	}
}

func memoryHog(t *testing.T, n limitedNode) {
	done := n.call(t, "oom", kwargs{"bytes": 128 << 20}, n.order("memory"))
	n.failed(t, done, standin.StatusCrashed, "killed: memory limit 64 MiB reached (peak 6", "exit code 137")
}

func memoryHogChild(t *testing.T, n limitedNode) {
	done := n.call(t, "oom", kwargs{"bytes": 128 << 20, "child": true}, n.order("memory"))
	// Its parent has survived and written a result, which does not count.
	n.failed(t, done, standin.StatusCrashed, "killed: memory limit 64 MiB reached (peak 6", "exit code 0")
	if a := n.accounting(t, done.ID); a.OOMKills == 0 || a.PeakMemory < 60<<20 || a.PeakMemory > 65<<20 { // the kernel counts in batches
		t.Errorf("accounting %+v", a)
	}
}

// accounting is what the administrator is told of an ended run's use.
func (n *node) accounting(t *testing.T, run int64) admin.Accounting {
	t.Helper()
	for _, r := range show[[]admin.Run](t, n, "ps", "-a") {
		if r.ID == run && r.Accounting != nil {
			return *r.Accounting
		}
	}
	t.Fatalf("no accounting of run %d", run)
	return admin.Accounting{}
}

func tenthOfCPU(t *testing.T, n limitedNode) {
	task, run := n.post(t, "burn", kwargs{"seconds": 3}, n.order("cpus"))
	n.active(t, run)
	eventually(t, func() error {
		if throttled := n.keyed(t, run, "cpu", "cpu.stat", "nr_throttled"); throttled == 0 {
			return errors.New("it was never throttled")
		}
		return nil
	})
	got := completed[map[string]float64](t, n.finish(t, task))
	// A period that has begun is granted in full.
	if got["cpu"] > 0.1*got["wall"]+0.2 || got["wall"] < 3 {
		t.Errorf("%.2f s of CPU in %.2f s", got["cpu"], got["wall"])
	}
	a := n.accounting(t, run)
	if a.CPUSeconds < 0.8*got["cpu"] || a.CPUUserSeconds+a.CPUSystemSeconds < 0.8*got["cpu"] || a.ThrottledPeriods == 0 || a.ThrottledSeconds == 0 || a.RunSeconds < got["wall"] {
		t.Errorf("%v, and the accounting is %+v", got, a)
	}
}

func forkBomb(t *testing.T, n limitedNode) {
	task, run := n.post(t, "fork_bomb", kwargs{"seconds": 3600}, n.order("pids"))
	n.active(t, run)
	most := int64(0)
	eventually(t, func() error {
		most = max(most, n.number(t, run, "pids", "pids.current"))
		if most < 40 {
			return fmt.Errorf("%d processes", most)
		}
		return nil
	})
	// The node and its other runs do not notice.
	if next := n.call(t, "noop", nil); next.Status != standin.StatusCompleted {
		t.Errorf("beside the bomb a run ended as %q: %s", next.Status, next.Text)
	}
	if now := n.number(t, run, "pids", "pids.current"); now > 40 || most > 40 {
		t.Errorf("%d and %d processes of 40", most, now)
	}
	done := n.finish(t, task)
	n.failed(t, done, standin.StatusCrashed)
}

func cpuSet(t *testing.T, n limitedNode) {
	got := completed[struct {
		Status map[string]string `json:"status"`
	}](t, n.call(t, "probe", nil, n.order("cpuset")))
	if list := got.Status["Cpus_allowed_list"]; list != "0" {
		t.Errorf("it may run on %q", list)
	}
}

func inMemory(t *testing.T, n limitedNode) {
	for path, size := range map[string]float64{"/dev/shm/file": 1 << 20, "/tmp/file": 2 << 20} {
		got := completed[map[string]any](t, n.call(t, "fill", kwargs{"path": path, "bytes": 8 << 20}, n.order("shm")))
		written, ok := got["written"].(float64)
		if !ok || written > size || written < size/2 || !strings.Contains(fmt.Sprint(got["error"]), "no space left") {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func ulimits(t *testing.T, n limitedNode) {
	got := completed[struct {
		Limits []string `json:"limits"`
	}](t, n.call(t, "probe", nil, n.order("ulimit")))
	all := strings.Join(got.Limits, "\n")
	// Go raises the soft limit of its files by itself, to the hard one.
	for _, want := range []string{`Max open files +(77|98|99) +99 `, `Max core file size +0 +0 `} {
		if !regexp.MustCompile(want).MatchString(all) {
			t.Errorf("no %q among\n%s", want, all)
		}
	}
}

func besideOutput(t *testing.T, n limitedNode) {
	done := n.call(t, "hoard", kwargs{"bytes": 16 << 20, "seconds": 3600}, n.order("output"))
	n.failed(t, done, standin.StatusCrashed, "took more than 2 MiB on the disk (limits.output_size)")
}

func scratchBound(t *testing.T, n limitedNode) {
	done := n.call(t, "hoard", kwargs{"path": "/mnt/tmp/hoard", "bytes": 16 << 20, "seconds": 3600}, n.order("scratch"))
	n.failed(t, done, standin.StatusCrashed, "took more than 4 MiB on the disk (limits.scratch_size)")
}

func deletedFiles(t *testing.T, n limitedNode) {
	done := n.call(t, "hoard", kwargs{"path": "/mnt/tmp/hoard", "bytes": 96 << 20, "seconds": 20, "nameless": true}, n.order("scratch"))
	n.failed(t, done, standin.StatusCrashed, "had deleted and still held open")
}

func timeoutOfTheDeaf(t *testing.T, n limitedNode) {
	done := n.call(t, "ignore_term", kwargs{"seconds": 3600}, n.order("timeout"))
	n.failed(t, done, standin.StatusCrashed, "it had not ended after 2s (limits.timeout)")
	if took := done.FinishedAt.Sub(*done.StartedAt).Seconds(); took < 2 || took > 15*float64(slowness()) {
		t.Errorf("it took %.1f s", took)
	}
}

// bothGroups reads the limits where the kernel has them.
func bothGroups(t *testing.T, n limitedNode) {
	g := n.hold(t, n.order("score"))
	rt, ctx := n.runtime(t), within(t)
	cg := rt.Cgroup(n.instance(t), fmt.Sprintf("run%d", g.run))
	want := runtime.Resources{
		MemoryLimit: 96 << 20, MemorySwap: 96 << 20, CPUQuota: 150_000, CPUPeriod: 100_000, CPUShares: 512, PidsLimit: 100, OOMScoreAdj: new(int64(321)),
	}
	if err := cg.Verify(want); err != nil {
		t.Error(err)
	}
	list, err := rt.ListContainers(ctx, map[string]string{"ai.vantage6.run": strconv.FormatInt(g.run, 10)})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d containers (%v)", len(list), err)
	}
	c, err := rt.ContainerStatus(ctx, list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := cg.VerifyProcess(c.PID, want, nil); err != nil {
		t.Error(err)
	}
	// And the comparison is one: it finds every difference.
	for name, other := range map[string]runtime.Resources{
		"memory": {MemoryLimit: 95 << 20}, "swap": {MemoryLimit: 96 << 20, MemorySwap: 97 << 20}, "cpu": {CPUQuota: 100_000}, "shares": {CPUShares: 1024},
		"score": {OOMScoreAdj: new(int64(0))},
	} {
		if err := cg.VerifyProcess(c.PID, other, nil); !errors.Is(err, runtime.ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := cg.VerifyProcess(os.Getpid(), want, nil); !errors.Is(err, runtime.ErrLimit) {
		t.Errorf("a process outside: %v", err)
	}
	if err := cg.VerifyProcess(c.PID, want, []runtime.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 1}}); !errors.Is(err, runtime.ErrLimit) {
		t.Errorf("a ulimit that it does not have: %v", err)
	}
	g.release(t)
	completed[gated](t, n.finish(t, g.task))
}

// giveDevice describes /dev/null under another name to the runtimes.
func giveDevice(t *testing.T) {
	t.Helper()
	const dir = "/var/run/cdi"
	if err := os.Mkdir(dir, 0o755); err == nil {
		t.Cleanup(func() { _ = os.Remove(dir) }) // if it is empty
	} else if !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	file := filepath.Join(dir, fmt.Sprintf("v6node-test-%d.json", os.Getpid()))
	spec := fmt.Sprintf(`{"cdiVersion":"0.6.0","kind":%q,"devices":[{"name":"one","containerEdits":{"deviceNodes":[{"path":"/dev/%s","hostPath":"/dev/null"}]}}]}`, deviceKind, deviceInside)
	if err := os.WriteFile(file, []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})
}

func device(t *testing.T, n limitedNode) {
	type devices struct {
		Devices []string `json:"devices"`
	}
	got := completed[devices](t, n.call(t, "probe", nil, n.order("device")))
	if !strings.Contains(strings.Join(got.Devices, " "), deviceInside) {
		t.Errorf("its devices are %q", got.Devices)
	}
	if got := completed[devices](t, n.call(t, "probe", nil)); strings.Contains(strings.Join(got.Devices, " "), deviceInside) {
		t.Errorf("another run has the device too: %q", got.Devices)
	}
}

func waitsForDevice(t *testing.T, n limitedNode) {
	first := n.hold(t, n.order("device"))
	task, run := n.post(t, "noop", nil, n.order("device"))
	if got := n.queued(t, 1); got[0] != run {
		t.Errorf("run %d waits, and not run %d", got[0], run)
	}
	if q := n.queue(t); len(q) != 1 || !strings.Contains(q[0].Reason, "waiting for "+deviceKind+": 1 asked, 0 free of 1") {
		t.Errorf("queue shows %+v", q)
	}
	// It is in nobody's way.
	completed[any](t, n.call(t, "noop", nil))
	if rec, _ := n.w.server.Run(run); rec.StartedAt != nil {
		t.Errorf("it was started without the device, at %v", rec.StartedAt)
	}
	first.release(t)
	completed[gated](t, n.finish(t, first.task))
	completed[any](t, n.finish(t, task))
}

// foreignUlimits uses the first node's containerd as one that an administrator
// runs: it has no handler for these limits.
func foreignUlimits(t *testing.T, n limitedNode) {
	for enforce, status := range map[string]string{"strict": standin.StatusStartFailed, "best-effort": standin.StatusCompleted} {
		t.Run(enforce, func(t *testing.T) {
			other := n.w.start(t, nodeOptions{Endpoint: n.endpoint(t), Extra: map[string]any{"resources": map[string]any{"enforce": enforce}}, Args: []string{"--ulimit", "nofile=55:66"}})
			done := other.call(t, "noop", nil)
			if done.Status != status {
				t.Errorf("ended as %q: %s", done.Status, done.Text)
			}
			if enforce == "strict" {
				oneSentence(t, done.sentence(t), "a limit is not in force", "RLIMIT_NOFILE", "only the node's own containerd takes them")
			} else if !strings.Contains(other.Log(1<<20), "a limit is not in force; the run goes on without it") {
				t.Errorf("no warning:\n%s", other.Log(20))
			}
		})
	}
}

func impossible(t *testing.T, w *world) {
	w.configure(t, nodeOptions{Args: []string{"--cpuset-cpus", "4095"}}).exits(t, 2, "cpuset_cpus", "this machine has no CPU 4095", "best-effort")
	w.configure(t, nodeOptions{Args: []string{"--memory", "lots"}}).exits(t, 2, "--memory", "is not a size")
}

// groups are the paths that the run's control group may have in a hierarchy: with
// either driver, of a controller's own hierarchy or the unified one. On "*" they
// are patterns.
func (n *node) groups(t testing.TB, run int64, controller string) []string {
	t.Helper()
	instance, base := n.instance(t), n.cgroup(t)
	var paths []string
	for _, root := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		paths = append(paths, filepath.Join(root, base, "v6node", instance, fmt.Sprintf("run%d", run)),
			filepath.Join(root, "v6node.slice", fmt.Sprintf("v6node-%s.run%d.slice", instance, run)))
	}
	return paths
}

// groupFile is the content of a file of the run's control group.
func (n *node) groupFile(t testing.TB, run int64, controller, file string) string {
	t.Helper()
	for _, at := range n.groups(t, run, controller) {
		b, err := os.ReadFile(filepath.Join(at, file))
		if err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

func (n *node) number(t testing.TB, run int64, controller, file string) int64 {
	t.Helper()
	got, _ := strconv.ParseInt(n.groupFile(t, run, controller, file), 10, 64) // 0 while there is none
	return got
}

// keyed is the number behind a key, the sum of the group's and that of the
// groups in it.
func (n *node) keyed(t testing.TB, run int64, controller, file, key string) int64 {
	t.Helper()
	var sum int64
	for _, at := range n.groups(t, run, controller) {
		for _, pattern := range []string{filepath.Join(at, file), filepath.Join(at, "*", file)} {
			found, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range found {
				b, _ := os.ReadFile(path) // it may be gone meanwhile
				for line := range strings.Lines(string(b)) {
					if f := strings.Fields(line); len(f) == 2 && f[0] == key {
						k, _ := strconv.ParseInt(f[1], 10, 64)
						sum += k
					}
				}
			}
		}
	}
	return sum
}

// expectCgroups checks that the node found the control groups that this machine
// is known to have, where the variable V6NODE_TEST_CGROUPS tells: "systemd v2".
func (n *node) expectCgroups(t testing.TB) {
	t.Helper()
	want := os.Getenv("V6NODE_TEST_CGROUPS")
	if want == "" {
		return
	}
	driver, version, _ := strings.Cut(want, " v")
	if line := fmt.Sprintf("cgroup_driver=%s cgroup_version=%s", driver, version); !strings.Contains(n.Log(1<<20), line) {
		t.Fatalf("the node does not log %q:\n%s", line, n.Log(20))
	}
}
