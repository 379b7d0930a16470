package userns

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/pidfd"
)

// ErrInUse is returned by Open when another process has the namespace.
var ErrInUse = errors.New("another v6node has the namespace of this state directory")

// startTime bounds how long it may take to make one, a tenth of a second as a rule.
const startTime = 30 * time.Second

// Config says where a namespace is kept and what it is made with.
type Config struct {
	// Dir is a directory of the user, which Open makes if need be.
	Dir string
	// RootlessKit is the program; Hold another that does nothing until SIGTERM.
	RootlessKit, Hold string
	// OneID is for a user without subordinate ids: nobody but this user is in
	// the namespace, which takes no RootlessKit.
	OneID bool
}

// Namespace is one that this process may enter, and nobody else at the time.
type Namespace struct {
	state string // RootlessKit's directory, or what has its place, see single.go
	log   string
	cfg   Config
	lock  *os.File
	pid   int
	fresh bool // made by this process
}

// Open takes hold of the namespace of a directory, for as long as this process
// and what it becomes by Enter lives. PID then tells whether it exists.
func Open(cfg Config) (*Namespace, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	state, err := stateDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	n := &Namespace{state: state, log: filepath.Join(cfg.Dir, "rootlesskit.log"), cfg: cfg}
	if n.lock, err = os.OpenFile(filepath.Join(cfg.Dir, "rootless.lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(n.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer n.lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: stop it, or give this one a state directory of its own", ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", n.lock.Name(), err)
	}
	if n.pid, err = n.keeper(); err != nil {
		return nil, errors.Join(err, n.lock.Close())
	}
	return n, nil
}

// maxSocket is the longest path of a socket that Linux takes.
const maxSocket = 107

// stateDir is where RootlessKit keeps its files, a socket among them: below dir,
// or where that is too long a name in a place with a short one.
func stateDir(dir string) (string, error) {
	const socket = "/api.sock"
	at := filepath.Join(dir, "rootlesskit")
	if len(at)+len(socket) <= maxSocket {
		return at, nil
	}
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = os.TempDir()
	}
	sum := sha256.Sum256([]byte(dir))
	at = filepath.Join(base, fmt.Sprintf("v6node-ns-%x", sum[:6]))
	if len(at)+len(socket) > maxSocket {
		return "", fmt.Errorf("the name of the directory %s is too long for a socket in it: choose a shorter state directory", dir)
	}
	if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(at)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s is not a directory of this user alone: remove it", at)
	}
	return at, nil
}

// keeper returns the process that keeps the namespace, 0 for none. RootlessKit
// holds a lock as long as it lives, so that its number cannot be another's.
func (n *Namespace) keeper() (int, error) {
	// First, for to ask for the lock takes it for a moment, in which RootlessKit
	// could not have it. It writes the number when it has.
	b, err := os.ReadFile(filepath.Join(n.state, "child_pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // there is none, or it begins or ends
	}
	if err != nil {
		return 0, err
	}
	f, err := os.Open(filepath.Join(n.state, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0, nil // nobody has it
	} else if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, fmt.Errorf("ask whether RootlessKit lives: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s has no process number", filepath.Join(n.state, "child_pid"))
	}
	return pid, nil
}

// PID is a process in the namespace, 0 as long as it does not exist.
func (n *Namespace) PID() int { return n.pid }

// Make makes the namespace if it does not exist.
func (n *Namespace) Make(ctx context.Context) error {
	if n.pid != 0 {
		return nil
	}
	// Of a keeper that was killed.
	if err := os.Remove(filepath.Join(n.state, "child_pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, made := n.withIDs()
	if n.cfg.OneID {
		if cmd, made, err = n.withOneID(); err != nil {
			return err
		}
	}
	cmd.Dir = "/"
	cmd.Env = environment(os.Environ())
	cmd.Stdout, cmd.Stderr = log, log
	// A Ctrl-C in the node's terminal is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), closeAll(cmd.ExtraFiles)); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	fail := func(err error) error {
		if words := n.lastWords(); words != "" {
			err = fmt.Errorf("%w: %s", err, words)
		}
		return unable("%s did not make a user namespace: %w%s", filepath.Base(cmd.Path), err, advice())
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := made(cmd.Process.Pid); err != nil {
			_ = cmd.Process.Kill()
			<-ended
			return fail(err)
		}
		if n.pid, err = n.keeper(); err == nil && n.pid != 0 {
			n.fresh = true
			return nil
		}
		select {
		case err := <-ended:
			return fail(err)
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			<-ended
			return fail(ctx.Err())
		case <-tick.C:
		}
	}
}

// withIDs has RootlessKit make the namespace, which says by itself when it has.
func (n *Namespace) withIDs() (cmd *exec.Cmd, made func(pid int) error) {
	return exec.Command(n.cfg.RootlessKit, "--state-dir="+n.state, "--net=host", "--propagation=rslave", n.cfg.Hold),
		func(int) error { return nil }
}

// lastWords are those of the program that makes the namespace, in one line.
func (n *Namespace) lastWords() string {
	f, err := os.Open(n.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// advice names a reason that is found only by trying.
func advice() string {
	b, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
	if err == nil && strings.TrimSpace(string(b)) == "1" {
		return "; AppArmor forbids user namespaces on this machine to programs without a profile: see docs/rootless.md for the one that RootlessKit needs"
	}
	return ""
}

// environment is what RootlessKit may inherit: nothing that is secret.
func environment(all []string) []string {
	var env []string
	for _, kv := range all {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR":
			env = append(env, kv)
		}
	}
	return env
}

// end ends the process that keeps a namespace whose RootlessKit has its files in
// state, and waits until its files are gone. The namespace goes when the last
// process in it does.
func end(ctx context.Context, state string) error {
	n := &Namespace{state: state}
	pid, err := n.keeper()
	if err != nil || pid == 0 {
		return err
	}
	p, err := pidfd.Open(pid)
	if errors.Is(err, pidfd.ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if now, err := n.keeper(); err != nil || now != pid {
		return err
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	if single(state) {
		return endSingle(ctx, p, state)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(state); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("RootlessKit does not end: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
