package node

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/procfs"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/node/admin"
)

// firstSample is how long the CPUs are watched before the first report.
const firstSample = time.Second

// reportMachine tells the server about this machine from time to time, in the
// form of the reference node. Of GPUs nothing is told: their use is known only
// through the vendor's library, which the node does not load. It returns when
// ctx ends.
func (n *Node) reportMachine(ctx context.Context) error {
	m := &machineMeter{}
	if _, err := m.measure(); err != nil {
		n.log.WarnContext(ctx, "the machine's load cannot be read, trying again", "error", err)
	}
	for wait := firstSample; ; wait = n.cfg.Prometheus.Interval {
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
		report, err := m.measure()
		if err != nil {
			n.log.WarnContext(ctx, "the machine's load cannot be read, nothing is reported to the server", "error", err)
			continue
		}
		report["num_algorithm_containers"] = n.Measure(ctx).Runs[string(admin.Running)]
		n.api.EmitNodeMetrics(report)
	}
}

// machineMeter measures the machine's load between two calls.
type machineMeter struct{ before procfs.CPUStat }

func (m *machineMeter) measure() (map[string]any, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, err
	}
	stat, err := fs.Stat()
	if err != nil {
		return nil, fmt.Errorf("read /proc/stat: %w", err)
	}
	mem, err := fs.Meminfo()
	if err != nil {
		return nil, fmt.Errorf("read /proc/meminfo: %w", err)
	}
	if mem.MemTotalBytes == nil || mem.MemAvailableBytes == nil || *mem.MemTotalBytes == 0 {
		return nil, fmt.Errorf("/proc/meminfo lacks MemTotal or MemAvailable")
	}
	total, available := *mem.MemTotalBytes, *mem.MemAvailableBytes
	report := map[string]any{
		"cpu_percent":      busyPercent(m.before, stat.CPUTotal),
		"memory_percent":   100 * (1 - float64(available)/float64(total)),
		"os":               "posix", // Python's os.name and sys.platform
		"platform":         "linux",
		"cpu_count":        len(stat.CPU),
		"memory_total":     total,
		"memory_available": available,
	}
	m.before = stat.CPUTotal
	return report, nil
}

// busyPercent is the share of all CPUs' time that was used between two readings
// of /proc/stat (proc_stat(5)). Guests' time is in user and nice already.
func busyPercent(a, b procfs.CPUStat) float64 {
	sum := func(c procfs.CPUStat) (all, idle float64) {
		idle = c.Idle + c.Iowait
		return c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal + idle, idle
	}
	allA, idleA := sum(a)
	allB, idleB := sum(b)
	if allB <= allA {
		return 0
	}
	return min(100, max(0, 100*(1-(idleB-idleA)/(allB-allA))))
}
