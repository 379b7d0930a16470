package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/v6node/v6node/internal/pidfd"
)

// shim is a process that monitors a sandbox of this containerd.
type shim struct {
	pid     int
	sandbox string
}

// shims lists them. Those that only begin or end one and then go are left out.
func (l *layout) shims() ([]shim, error) {
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var out []shim
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // ended just now
		}
		args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		at := func(flag string) string {
			if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
				return args[i+1]
			}
			return ""
		}
		if filepath.Base(args[0]) != shimName || at("-address") != l.socket || slices.Contains(args, "start") || slices.Contains(args, "delete") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			out = append(out, shim{pid, at("-id")})
		}
	}
	return out, nil
}

// endStrays ends those of the shims whose sandbox a new containerd does not know:
// the one before it died when it had started them and not yet said so anywhere.
func (d *Containerd) endStrays(ctx context.Context, before []shim) error {
	if len(before) == 0 {
		return nil
	}
	r, err := d.client.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("cannot ask containerd for its sandboxes: %w", err)
	}
	var errs []error
	for _, s := range before {
		if slices.ContainsFunc(r.GetItems(), func(p *cri.PodSandbox) bool { return p.GetId() == s.sandbox }) {
			continue
		}
		d.cfg.Log.WarnContext(ctx, "the monitor of a sandbox that containerd does not know is ended", slog.Int("pid", s.pid), slog.String("sandbox", s.sandbox))
		errs = append(errs, s.end(ctx))
	}
	return errors.Join(errs...)
}

// end kills the shim and what it has started.
func (s shim) end(ctx context.Context) error {
	p, err := openProcess(s.pid)
	if errors.Is(err, pidfd.ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.release()
	for _, child := range childrenOf(s.pid) {
		_ = unix.Kill(child, unix.SIGKILL) // it may be gone
	}
	if err := p.held.Signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the shim with process number %d does not end: %w", s.pid, ctx.Err())
	}
}

// childrenOf lists the children of a process.
func childrenOf(pid int) []int {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, path := range threads {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}
