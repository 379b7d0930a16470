package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// usage is what processes took.
type usage struct {
	wall time.Duration
	peak int64 // memory of all of them together, each at its own peak
}

// pipe runs processes, each reading what the one before it writes, and measures them until
// the last one has ended.
func pipe(ctx context.Context, commands ...[]string) (out []byte, u usage, err error) {
	var stdout, stderr bytes.Buffer
	var cmds []*exec.Cmd
	for _, c := range commands {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		cmd.Stderr = &stderr
		if n := len(cmds); n > 0 {
			r, w, err := os.Pipe()
			if err != nil {
				return nil, u, err
			}
			defer r.Close()
			defer w.Close()
			cmds[n-1].Stdout, cmd.Stdin = w, r
		}
		cmds = append(cmds, cmd)
	}
	cmds[len(cmds)-1].Stdout = &stdout
	began := time.Now()
	for n, cmd := range cmds {
		if err := cmd.Start(); err != nil {
			for _, c := range cmds[:n] {
				c.Process.Kill()
				c.Wait()
			}
			return nil, u, err
		}
		for _, end := range []any{cmd.Stdin, cmd.Stdout} {
			if f, ok := end.(*os.File); ok { // the child has it
				f.Close()
			}
		}
	}
	ended, peak := make(chan struct{}), watch(cmds)
	go func() { defer close(ended); peak(ctx) }()
	var failed error
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w: %s", cmd.Args[0], err, bytes.TrimSpace(stderr.Bytes()))
		}
	}
	u.wall = time.Since(began)
	<-ended
	return stdout.Bytes(), usage{u.wall, peak(nil)}, failed
}

// watch reads the peak memory of processes from the kernel as long as they live. What
// getrusage says begins with the memory of this process.
func watch(cmds []*exec.Cmd) func(context.Context) int64 {
	peaks := make([]int64, len(cmds))
	return func(ctx context.Context) int64 {
		for living := ctx != nil; living; {
			living = false
			for n, cmd := range cmds {
				if kb, ok := highWater(cmd.Process.Pid); ok {
					peaks[n], living = max(peaks[n], kb<<10), true
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		var sum int64
		for _, p := range peaks {
			sum += p
		}
		return sum
	}
}

// highWater is VmHWM; ok is false for a process that has ended.
func highWater(pid int) (kb int64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(b, []byte("VmHWM:"))
	if !ok {
		return 0, false
	}
	_, err = fmt.Sscan(string(rest), &kb)
	return kb, err == nil
}

// self runs this program as a process of its own.
func (b *bench) self(ctx context.Context, args ...string) ([]byte, usage, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, usage{}, err
	}
	return pipe(ctx, append([]string{exe}, args...))
}

// disk watches how many bytes directories take.
type disk struct {
	dirs []string
	peak atomic.Int64
	stop chan struct{}
	wg   sync.WaitGroup
}

func watchDisk(dirs ...string) *disk {
	d := &disk{dirs: dirs, stop: make(chan struct{})}
	d.wg.Go(func() {
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		for {
			d.peak.Store(max(d.peak.Load(), d.now()))
			select {
			case <-d.stop:
				return
			case <-t.C:
			}
		}
	})
	return d
}

func (d *disk) now() int64 {
	var n int64
	for _, dir := range d.dirs {
		// What is removed meanwhile does not count.
		_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			var st syscall.Stat_t
			if err == nil && syscall.Lstat(p, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
				n += st.Blocks * 512
			}
			return nil
		})
	}
	return n
}

// end gives the peak, and what is there now.
func (d *disk) end() (peak, left int64) {
	close(d.stop)
	d.wg.Wait()
	return d.peak.Load(), d.now()
}
