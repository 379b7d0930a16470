package runtime

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// monitored starts a monitor with one child, as a shim has a container.
func monitored(t *testing.T) (monitor *exec.Cmd, child int) {
	t.Helper()
	// The monitor does not collect its child before it is told.
	monitor = exec.Command("sh", "-c", "sleep infinity & echo $!; read line; wait")
	out, err := monitor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := monitor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(strings.TrimSpace(line), &child); err != nil {
		t.Fatal(err)
	}
	return monitor, child
}

func TestALivingMonitorIsGivenTime(t *testing.T) {
	monitor, child := monitored(t)
	l := &lookout{}
	defer l.close()
	pid := func() int { return child }
	if l.lost(pid) {
		t.Fatal("a living process is lost")
	}
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for !l.process.Ended() { // the kernel is about to end it
	}
	for n := range hangingLooks - 1 {
		if l.lost(pid) {
			t.Fatalf("lost after %d looks, while its monitor lives", n+1)
		}
	}
	if !l.lost(pid) {
		t.Error("never lost, while its monitor hangs")
	}
	_ = monitor.Process.Kill()
	_ = monitor.Wait() // it was killed
	l.dead = lostLooks - 1
	if !l.lost(pid) {
		t.Error("not lost, although its monitor is dead")
	}
}
