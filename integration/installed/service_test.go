//go:build vm

package installed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

const (
	unit       = "v6node@alpha"
	stateDir   = "/var/lib/v6node/alpha"
	configFile = "/etc/v6node/alpha.yaml"
)

// site is a server with one task-giver, and the service's node.
type site struct {
	lab    *lab.Lab
	node   int64
	org    int64
	collab int64
	image  imagekit.Ref
	ada    *standin.Researcher
}

// newSite writes the service's configuration.
func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	l, err := lab.New(t.Context(), dir, lab.Programs{V6node: "/usr/bin/v6node", Bundle: "/usr/libexec/v6node"}, standin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &site{lab: l, org: l.Server.AddOrganization("hospital")}
	s.collab = l.Server.AddCollaboration("study", false, s.org)
	key := l.Server.AddNode(s.org, s.collab)
	s.node = l.Server.NodeID(key)
	// The service's unit says where the state is.
	n, err := l.Configure(lab.NodeSpec{Name: "alpha", APIKey: key, Extra: map[string]any{"state_dir": nil}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(configFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.image, err = l.Push("suite/testalgo", algorithm(t, "testalgo")); err != nil {
		t.Fatal(err)
	}
	l.Server.AddUser(s.org, "ada", "secret")
	if s.ada, err = standin.NewResearcher(t.Context(), l.Server.URL(), "ada", "secret", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.ada.Close)
	return s
}

// post gives the node a task.
func (s *site) post(t *testing.T, method string) int64 {
	t.Helper()
	id, err := s.ada.CreateTask(t.Context(), standin.TaskSpec{
		Image: s.image.Tag, Collaboration: s.collab, Organizations: []int64{s.org}, Method: method,
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// result waits for the end of a task, which must be a good one.
func (s *site) result(t *testing.T, task int64) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, err := s.ada.WaitTask(ctx, task)
	if err != nil || status != standin.StatusCompleted {
		t.Fatalf("task %d ended as %q, %v\n%s", task, status, err, journal(t))
	}
	results, err := s.ada.Results(ctx, task)
	if err != nil || len(results) != 1 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	return string(results[0].Data)
}

// online waits until the server counts the node as connected, or not.
func (s *site) online(t *testing.T, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.lab.Server.WaitNode(ctx, s.node, want); err != nil {
		t.Fatalf("%v\n%s", err, journal(t))
	}
}

// journal is what the service and systemd have said of late.
func journal(t *testing.T) string {
	t.Helper()
	return command(t, "journalctl", "-u", unit, "-n", "50", "--no-pager")
}

// mainPID is the service's process.
func mainPID(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(command(t, "systemctl", "show", "-P", "MainPID", unit)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// gate is the algorithm that waits until it is let go.
func (s *site) gate(t *testing.T) (task int64, open func()) {
	t.Helper()
	task = s.post(t, "gate")
	scratch := ""
	eventually(t, func() error {
		found, err := filepath.Glob(stateDir + "/work/jobs/*/executed")
		if err != nil {
			return err
		}
		for _, f := range found {
			dir := filepath.Dir(f)
			if _, err := os.Lstat(filepath.Join(dir, "open")); errors.Is(err, fs.ErrNotExist) { // not that of an earlier run
				scratch = dir
				return nil
			}
		}
		return errors.New("no algorithm waits")
	})
	return task, func() {
		if err := os.WriteFile(filepath.Join(scratch, "open"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%v\n%s", err, journal(t))
		}
	}
}

func TestAnInstalledNodeIsAService(t *testing.T) {
	install(t)
	s := newSite(t)
	command(t, "systemctl", "enable", "--now", unit)
	t.Cleanup(func() { command(t, "systemctl", "disable", "--now", unit) })
	// The unit is of type notify: it has started when the node is ready.
	s.online(t, true)
	if got := strings.TrimSpace(command(t, "systemctl", "show", "-P", "StatusText", unit)); got == "" {
		t.Error("the node tells systemd nothing of how it is")
	}

	t.Run("a task runs", func(t *testing.T) {
		if got := s.result(t, s.post(t, "noop")); !strings.Contains(got, "started") {
			t.Errorf("the result is %q", got)
		}
	})
	t.Run("only root finds its state, and the administrator's commands find the node", func(t *testing.T) {
		for _, dir := range []string{"/etc/v6node", stateDir} {
			info, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o700 || info.Sys().(*syscall.Stat_t).Uid != 0 {
				t.Errorf("%s has mode %v", dir, info.Mode())
			}
		}
		var runs []struct{ ID int64 }
		if err := json.Unmarshal([]byte(command(t, "v6node", "ps", "-a", "--state-dir", stateDir, "-o", "json")), &runs); err != nil || len(runs) != 1 {
			t.Errorf("%d runs, %v", len(runs), err)
		}
	})
	t.Run("a reload applies what is new in the configuration, and refuses what is wrong", func(t *testing.T) {
		before := mainPID(t)
		config, err := os.ReadFile(configFile)
		if err != nil {
			t.Fatal(err)
		}
		change := func(to []byte) {
			if err := os.WriteFile(configFile, to, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			change(config)
			command(t, "systemctl", "reload", unit)
		})
		change([]byte(string(config) + "\nlimits: {timeout: never}\n"))
		if err := exec.Command("systemctl", "reload", unit).Run(); err == nil {
			t.Error("a wrong configuration was taken")
		}
		change([]byte(string(config) + "\nlimits: {timeout: 7m}\n"))
		command(t, "systemctl", "reload", unit)
		if log := journal(t); !strings.Contains(log, "the configuration was read again") {
			t.Errorf("the node says nothing of it:\n%s", log)
		}
		if mainPID(t) != before {
			t.Error("the node was restarted")
		}
		s.result(t, s.post(t, "noop"))
	})
	t.Run("an upgrade keeps a running algorithm", func(t *testing.T) {
		before := mainPID(t)
		task, open := s.gate(t)
		command(t, "dpkg", "-i", os.Getenv("V6NODE_DEB")) // restarts the nodes
		command(t, "systemctl", "is-active", unit)
		if mainPID(t) == before {
			t.Error("the package did not restart the node")
		}
		open()
		if got := s.result(t, task); !strings.Contains(got, `"executed":1`) {
			t.Errorf("the result is %q", got)
		}
	})
	t.Run("a node that is killed is started again, and its algorithm goes on", func(t *testing.T) {
		task, open := s.gate(t)
		before := mainPID(t)
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if pid := mainPID(t); pid == before || pid == 0 {
				return errors.New("systemd has not started the node again")
			}
			return nil
		})
		open()
		if got := s.result(t, task); !strings.Contains(got, `"executed":1`) {
			t.Errorf("the result is %q", got)
		}
	})
	t.Run("a node that does not answer is ended by the watchdog, and started again", func(t *testing.T) {
		// Less than the unit has, for the test. A stopped process takes no SIGABRT.
		dropIn := "/run/systemd/system/v6node@alpha.service.d"
		if err := os.MkdirAll(dropIn, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dropIn); err != nil {
				t.Error(err)
			}
			command(t, "systemctl", "daemon-reload")
		})
		if err := os.WriteFile(filepath.Join(dropIn, "watchdog.conf"), []byte("[Service]\nWatchdogSec=10s\nTimeoutAbortSec=5s\nRestartSec=0\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		command(t, "systemctl", "daemon-reload")
		command(t, "systemctl", "restart", unit)
		before := mainPID(t)
		if err := syscall.Kill(before, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if pid := mainPID(t); pid == before || pid == 0 {
				return errors.New("systemd has not started the node again")
			}
			return nil
		})
		s.online(t, true)
	})
	t.Run("stopped it leaves no process", func(t *testing.T) {
		command(t, "systemctl", "stop", unit)
		eventually(t, func() error {
			procs, err := filepath.Glob("/proc/[0-9]*/exe")
			if err != nil {
				return err
			}
			for _, p := range procs {
				exe, err := os.Readlink(p)
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
					continue
				}
				if strings.HasPrefix(exe, "/usr/libexec/v6node/") || strings.HasPrefix(exe, "/usr/bin/v6node") {
					return fmt.Errorf("%s runs %s", filepath.Dir(p), exe)
				}
			}
			return nil
		})
	})
}
