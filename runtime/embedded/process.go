package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/pidfd"
	"github.com/v6node/v6node/internal/userns"
)

// process is a containerd, started by this process or by an earlier one.
type process struct {
	pid    int
	held   *pidfd.Process
	exited chan struct{} // closed when the process has ended
	wg     sync.WaitGroup
}

// openProcess holds a process and watches for its end. The caller must call
// release. The error wraps pidfd.ErrEnded when there is no such process.
func openProcess(pid int) (*process, error) {
	held, err := pidfd.Open(pid)
	if err != nil {
		return nil, err
	}
	p := &process{pid: pid, held: held, exited: make(chan struct{})}
	p.wg.Go(p.watch)
	return p, nil
}

// watch ends when the process ends or is released.
func (p *process) watch() {
	if p.held.Wait(context.Background()) != nil {
		return
	}
	// Reap it if it is a child, and only then does it vanish from /proc.
	var status unix.WaitStatus
	_, _ = unix.Wait4(p.pid, &status, unix.WNOHANG, nil)
	close(p.exited)
}

// release lets go of the process without ending it. Idempotent.
func (p *process) release() {
	_ = p.held.Close()
	p.wg.Wait()
}

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// end asks the process to end, and after the grace period makes it end. It
// returns when the process is gone, or with an error when ctx ends first.
func (p *process) end(ctx context.Context, grace time.Duration) error {
	if err := p.held.Signal(unix.SIGTERM); err != nil {
		return err
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	for {
		select {
		case <-p.exited:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("containerd (process %d) has not ended yet: %w", p.pid, ctx.Err())
		case <-t.C:
			if err := p.held.Signal(unix.SIGKILL); err != nil {
				return err
			}
		}
	}
}

// launch starts containerd in a session of its own, so that a Ctrl-C in the
// node's terminal does not reach it. Output goes straight to the log file,
// because a pipe would break when the node ends.
func launch(l *layout, b Bundle, level string) (*process, error) {
	out, err := openLog(l.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c := exec.Command(b.Containerd, "--config", l.config, "--log-level", level)
	c.Dir = "/"
	c.Env = environment(os.Environ())
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("cannot start containerd: %w", err)
	}
	p, err := openProcess(c.Process.Pid)
	if err != nil {
		err = errors.Join(err, c.Process.Kill())
		_ = c.Wait()
		return nil, err
	}
	// The pidfd watches and reaps from here on.
	return p, c.Process.Release()
}

// environment selects what containerd and the shims may inherit: not the
// node's secrets, which can be in its environment.
func environment(all []string) []string {
	keep := []string{"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
	var env []string
	path := false
	for _, kv := range all {
		name, value, _ := strings.Cut(kv, "=")
		if !slices.Contains(keep, name) && !strings.HasPrefix(name, "ROOTLESSKIT_") {
			continue
		}
		if name == "PATH" {
			// modprobe, apparmor_parser and the like.
			path, kv = true, "PATH="+value+":/usr/local/sbin:/usr/sbin:/sbin"
		}
		env = append(env, kv)
	}
	if !path {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return env
}

// findProcess returns the living containerd of a state directory, nil if there
// is none. r may be nil: then, as when it is outdated, the process that listens
// on the socket is taken, because nobody else can listen in a private
// directory. Whatever is found must have been started with our configuration
// file.
func findProcess(l *layout, r *record) (*process, error) {
	if r != nil {
		if p, err := r.process(l); p != nil || err != nil {
			return p, err
		}
	}
	pid, err := userns.Listener(l.socket)
	if err != nil || pid <= 1 {
		return nil, nil
	}
	p, err := openProcess(pid)
	if errors.Is(err, pidfd.ErrEnded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if again, err := userns.Listener(l.socket); err != nil || again != pid || !startedWith(pid, l.config) {
		p.release()
		return nil, nil
	}
	return p, nil
}

// process returns the recorded process if it still is the one recorded.
func (r *record) process(l *layout) (*process, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if r.Boot != boot {
		return nil, nil
	}
	// First hold, then look: what was checked is then what is held.
	p, err := openProcess(r.PID)
	if errors.Is(err, pidfd.ErrEnded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if start, err := startTime(r.PID); err != nil || start != r.Start || !startedWith(r.PID, l.config) {
		p.release()
		return nil, nil
	}
	return p, nil
}

// startedWith tells whether a process was given our configuration file.
func startedWith(pid int, config string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "cmdline"))
	return err == nil && slices.ContainsFunc(bytes.Split(b, []byte{0}), func(arg []byte) bool {
		return string(arg) == config
	})
}
