//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/imagekit"
)

// server is a container runtime that an administrator runs: v6node neither
// starts nor configures it.
type server struct {
	w       *world
	kind    kind
	dir     string // everything is in it
	pause   string // image of the sandboxes' first process
	confDir string // CNI configuration
	binDir  string // CNI plugins
	command func() *exec.Cmd
	cmd     *exec.Cmd
	log     *os.File
	ended   chan struct{}

	wasKilled bool // in the middle of whatever it did
}

// startServer starts a runtime of the world's kind below the world's directory,
// without any network. Its pause image comes from the world's registry, for the
// default one would come from the Internet.
func (w *world) startServer(t *testing.T, name string) *server {
	t.Helper()
	s := &server{w: w, kind: w.kind, dir: filepath.Join(w.dir, name)}
	s.confDir, s.binDir = filepath.Join(s.dir, "net.d"), filepath.Join(s.dir, "cni")
	for _, d := range []string{s.confDir, s.binDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if w.user == nil {
		// As is what is above the state of a runtime that was installed: the root
		// of a container in a user namespace has to pass.
		if err := errors.Join(os.Chmod(w.dir, 0o711), os.Chmod(s.dir, 0o711)); err != nil {
			t.Fatal(err)
		}
	}
	pause, err := w.lab.Push("registry.k8s/pause", filepath.Join(w.programs.Bundle, "v6node-pause"), func(s *imagekit.Spec) { s.Path = "/pause" })
	if err != nil {
		t.Fatal(err)
	}
	s.pause = pause.Tag
	if s.log, err = os.Create(filepath.Join(s.dir, "runtime.log")); err != nil {
		t.Fatal(err)
	}
	switch s.kind {
	case debianKind:
		s.debianContainerd(t)
	case crioKind:
		s.crio(t)
	default:
		s.containerd(t)
	}
	s.start(t)
	return s
}

// start starts the runtime's process and waits until it answers.
func (s *server) start(t testing.TB) {
	t.Helper()
	s.cmd, s.ended = s.command(), make(chan struct{})
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.w.user != nil {
		s.cmd.SysProcAttr.Credential = s.w.user.credential()
		s.cmd.Env = append(s.cmd.Env, "HOME="+s.dir)
		if err := s.w.user.own(s.dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its log
	}(s.cmd, s.ended)
	eventually(t, func() error {
		select {
		case <-s.ended:
			t.Fatalf("the runtime ended:\n%s", s.lastWords())
		default:
		}
		_, err := s.crictl(t, "version")
		return err
	})
}

// restart kills the runtime without warning, and starts it again.
func (s *server) restart(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	s.start(t)
}

func (s *server) socket() string   { return filepath.Join(s.dir, "c.sock") }
func (s *server) endpoint() string { return "unix://" + s.socket() }

func (s *server) lastWords() string {
	b, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// removeStrays removes what belongs to a sandbox that the runtime does not know,
// because it was killed when it began with it: that is for its administrator to do
// (docs/faults-runtime.md).
func (s *server) removeStrays(t *testing.T) {
	t.Helper()
	strays := &traces{dirs: []string{s.dir}}
	for _, pid := range strays.processes(t) {
		if filepath.Base(strings.Fields(commandLine(pid) + " -")[0]) == "containerd-shim-runc-v2" {
			_ = unix.Kill(pid, unix.SIGKILL) // it may end just now
		}
	}
	for _, m := range strays.mounts(t) {
		if strings.HasPrefix(filepath.Base(m), "cni-") {
			if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
}

// stop ends the runtime; it does nothing when it has ended.
func (s *server) stop(t *testing.T) {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-s.ended:
	case <-ctx.Done():
		t.Errorf("the runtime does not end:\n%s", s.lastWords())
		_ = s.cmd.Process.Kill() // it may end just now
		<-s.ended
	}
	if t.Failed() {
		t.Logf("the runtime ended like this:\n%s", s.lastWords())
	}
	if err := s.log.Close(); err != nil {
		t.Error(err)
	}
	// CRI-O leaves the mount of its own store where a sandbox was in use when it
	// was killed; whether it is one of a run's is seen below it.
	if s.kind == crioKind {
		_ = unix.Unmount(filepath.Join(s.dir, "root", "overlay"), 0) // mostly there is none
	}
	if s.wasKilled {
		s.removeStrays(t)
	}
}

func (s *server) crictl(t testing.TB, args ...string) (string, error) {
	return s.w.crictl(t, s.endpoint(), args...)
}

// crictl runs the administrator's tool.
func (w *world) crictl(t testing.TB, endpoint string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(within(t), filepath.Join(w.programs.Bundle, "crictl"),
		append([]string{"-r", endpoint, "-i", endpoint, "-t", (10 * time.Second * time.Duration(slowness())).String()}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), "HOME="+w.dir)
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("crictl %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// v6node runs a command of the program under test.
func (w *world) v6node(t testing.TB, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(within(t), w.programs.V6node, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if w.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.user.credential()}
		cmd.Env = append(os.Environ(), "HOME="+w.dir) // root's is not for this user
	}
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// installNetwork does what the manual tells the administrator of an existing
// runtime.
func (w *world) installNetwork(t *testing.T, s *server) {
	t.Helper()
	args := []string{"cni", "install", "--conf-dir", s.confDir, "--bin-dir", s.binDir}
	if s.kind == crioKind {
		args = append(args, "--runtime", "crio", "--drop-in-dir", s.crioDropIns(), "--registries-dir", s.crioRegistries())
	}
	if out, errOut, err := w.v6node(t, args...); err != nil {
		t.Fatalf("v6node cni install: %v\n%s%s", err, out, errOut)
	}
	if s.kind == crioKind {
		s.restart(t)
	}
}

// waitNetwork waits until the runtime has loaded a CNI network by itself.
func (s *server) waitNetwork(t *testing.T, name string) {
	t.Helper()
	eventually(t, func() error {
		out, err := s.crictl(t, "info")
		if err != nil {
			return err
		}
		var info struct {
			Status struct {
				Conditions []struct {
					Type   string
					Status bool
				}
			}
			CNI struct {
				Networks []struct {
					Config struct{ Name string }
				}
			} `json:"cniconfig"`
		}
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			return err
		}
		if s.kind == crioKind {
			// It tells no names, but was told one.
			for _, c := range info.Status.Conditions {
				if c.Type == "NetworkReady" && c.Status {
					return nil
				}
			}
			return errors.New("CRI-O's network is not ready")
		}
		var have []string
		for _, n := range info.CNI.Networks {
			have = append(have, n.Config.Name)
		}
		if !slices.Contains(have, name) {
			return fmt.Errorf("the runtime has the networks %q and not %q", have, name)
		}
		return nil
	})
}
