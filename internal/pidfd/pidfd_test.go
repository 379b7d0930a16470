package pidfd

import (
	"context"
	"errors"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// sleeper is a child that does not end by itself, and is not collected before the test
// is over.
func sleeper(t *testing.T) *Process {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by a signal
	})
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() }) // a test may have closed it
	return p
}

func TestAProcessIsWaitedForUntilItEnds(t *testing.T) {
	p := sleeper(t)
	if p.Ended() {
		t.Error("it has ended before it was asked to")
	}
	done := make(chan error, 1)
	go func() { done <- p.Wait(context.Background()) }()
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !p.Ended() {
		t.Error("it is said to live")
	}
	if err := errors.Join(p.Wait(t.Context()), p.Signal(unix.SIGTERM)); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

func TestAWaitEndsWithItsContextAndCanBeginAgain(t *testing.T) {
	p := sleeper(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Wait(ctx) }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Errorf("after waits that were given up: %v", err)
	}
}

func TestClosingEndsAWait(t *testing.T) {
	p := sleeper(t)
	done := make(chan error, 1)
	go func() { done <- p.Wait(context.Background()) }()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the process is said to have ended")
	}
}

func TestAnEndedProcessIsNotHeld(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cmd.Process.Pid); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
}
