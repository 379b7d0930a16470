package runtime

import (
	"errors"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAProcessThatHasEndedIsNotOneOutsideItsGroup(t *testing.T) {
	host, err := findCgroupHost()
	if err != nil {
		t.Fatal(err)
	}
	g := newCgroup(host, Cgroupfs, "node", "run")
	cmd := exec.CommandContext(t.Context(), "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.VerifyProcess(cmd.Process.Pid, Resources{}, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("a living process elsewhere: %v", err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	// Ended, and not collected yet.
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if err := g.VerifyProcess(cmd.Process.Pid, Resources{}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that waits to be collected: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := g.VerifyProcess(cmd.Process.Pid, Resources{}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is gone: %v", err)
	}
}
