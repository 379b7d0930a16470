package node

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/node/admin"
)

// ticksPerSecond is the unit of times in /proc/PID/stat: Linux shows user space
// a hundredth of a second, whatever it counts in itself (proc_pid_stat(5)).
const ticksPerSecond = 100

// commandLimit bounds how much of a command line is shown, in bytes.
const commandLimit = 4096

// processes describes those of the processes that still live.
func processes(pids []int) ([]admin.Process, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, err
	}
	sinceBoot := time.Duration(now.Nano())
	var out []admin.Process
	for _, pid := range pids {
		p, err := process(pid, sinceBoot)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}

func process(pid int, sinceBoot time.Duration) (*admin.Process, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return nil, err
	}
	// The name stands in parentheses and may hold anything: fields are counted
	// after the last one.
	name, rest, ok := strings.Cut(string(stat), "(")
	end := strings.LastIndexByte(rest, ')')
	if !ok || end < 0 {
		return nil, fmt.Errorf("%sstat has an unknown form: %q", dir, name)
	}
	name = rest[:end]
	f := strings.Fields(rest[end+1:])
	const state, ppid, utime, stime, threads, start, rss = 0, 1, 11, 12, 17, 19, 21
	if len(f) <= rss {
		return nil, fmt.Errorf("%sstat has too few fields", dir)
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64) // the kernel writes numbers
		return n
	}
	ticks := func(n int64) time.Duration { return time.Duration(n) * time.Second / ticksPerSecond }
	cpu, age := ticks(number(utime)+number(stime)), sinceBoot-ticks(number(start))
	p := &admin.Process{
		PID: pid, PPID: int(number(ppid)), State: f[state], Threads: int(number(threads)),
		CPUSeconds: cpu.Seconds(), ElapsedSeconds: age.Seconds(), Memory: number(rss) * int64(os.Getpagesize()), Command: "[" + name + "]",
	}
	if age > 0 {
		p.CPUPercent = 100 * cpu.Seconds() / age.Seconds()
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		p.User = userName(st.Uid)
	}
	if line, err := os.ReadFile(dir + "cmdline"); err == nil && len(line) > 0 {
		p.Command = clean([]byte(strings.TrimRight(strings.ReplaceAll(string(line[:min(len(line), commandLimit)]), "\x00", " "), " ")))
	}
	return p, nil
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
