package runtime

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/pidfd"
)

// removeRetry is how long Remove waits for a group that is busy although no
// process is left in it: the kernel lets go of it a moment after.
const removeRetry = 2 * time.Millisecond

// kill ends every process in the group and waits until it has ended. On an
// error it returns a process that is left.
func (g *Cgroup) kill(ctx context.Context) (left int, err error) {
	for {
		pids, err := g.processes()
		if err != nil || len(pids) == 0 {
			return 0, err
		}
		if g.host.version == 2 {
			// One write kills all, whatever they fork meanwhile (Linux 5.14).
			err := writeValue(g.host.file("", g.rel, "cgroup.kill"), "1")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return pids[0], err
			}
		}
		for _, pid := range pids {
			if err := g.killProcess(ctx, pid); err != nil {
				return pid, err
			}
		}
	}
}

// killProcess kills one process and waits for its end. The process is held by
// a pidfd, and looked up once more in the group, so that its number cannot have
// gone to another one.
func (g *Cgroup) killProcess(ctx context.Context, pid int) error {
	p, err := pidfd.Open(pid)
	if errors.Is(err, pidfd.ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	now, err := g.processes()
	if err != nil || !slices.Contains(now, pid) {
		return err
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// processes returns all processes in the group and the groups below, in any
// hierarchy.
func (g *Cgroup) processes() ([]int, error) {
	var pids []int
	for _, root := range g.host.roots {
		err := filepath.WalkDir(filepath.Join(root, g.rel), func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return ignoreGone(err)
			}
			text, err := textValue(filepath.Join(dir, "cgroup.procs"))
			if err != nil {
				// A threaded group of v2 says this; its processes are listed
				// by the group above.
				if errors.Is(err, unix.EOPNOTSUPP) {
					return nil
				}
				return ignoreGone(err)
			}
			for line := range strings.FieldsSeq(text) {
				// 0 is a process of another PID namespace.
				if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
