package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// port is the name of the virtio port through which the machine speaks.
const port = "org.v6node.test"

// mark begins a line that is not a test's but the guest's own: a note.
const mark = "\x1ev6node-vm "

// note is what the guest tells beside what the tests print.
type note struct {
	Ready *ready `json:",omitempty"` // the first: the machine is up
	Begin string `json:",omitempty"` // a suite
	End   *end   `json:",omitempty"` // of the suite
	Error string `json:",omitempty"` // why nothing more follows
	Done  bool   `json:",omitempty"` // the last: all suites have had their turn
}

type ready struct{ Kernel, Virtualization string }

type end struct {
	Name    string
	Error   string // "" if the test program exited with 0
	Seconds float64
}

// guest runs the plan inside the machine and powers it off.
func guest() error {
	out, err := os.OpenFile(filepath.Join("/dev/virtio-ports", port), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	tell := func(n note) error {
		b, err := json.Marshal(n)
		if err == nil {
			_, err = fmt.Fprintf(out, "\n%s%s\n", mark, b)
		}
		return err
	}
	if err := runPlan(out, tell); err != nil {
		if err := tell(note{Error: err.Error()}); err != nil {
			return err
		}
	}
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func runPlan(out io.Writer, tell func(note) error) error {
	var plan []suite
	b, err := os.ReadFile(filepath.Join(payloadDir, "plan.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &plan); err != nil {
		return err
	}
	if err := network(); err != nil {
		return err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	// It fails where there is no virtualization, and says "none".
	virt, _ := exec.Command("systemd-detect-virt").Output()
	if err := tell(note{Ready: &ready{unix.ByteSliceToString(name.Release[:]), strings.TrimSpace(string(virt))}}); err != nil {
		return err
	}
	for _, s := range plan {
		if err := tell(note{Begin: s.Name}); err != nil {
			return err
		}
		began, e := time.Now(), end{Name: s.Name}
		if err := s.run(out); err != nil {
			e.Error = err.Error()
		}
		e.Seconds = time.Since(began).Seconds()
		if err := tell(note{End: &e}); err != nil {
			return err
		}
	}
	return tell(note{Done: true})
}

// network gives the machine's interface an address, for tests that prove that it
// cannot be reached. There is nobody else in this network.
func network() error {
	links, err := filepath.Glob("/sys/class/net/e*")
	if err != nil || len(links) != 1 {
		return errors.Join(fmt.Errorf("the machine has %d network interfaces", len(links)), err)
	}
	dev := filepath.Base(links[0])
	for _, args := range [][]string{{"address", "add", "10.0.2.15/24", "dev", dev}, {"link", "set", dev, "up"}} {
		if text, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, text)
		}
	}
	return nil
}

// run executes the tests of a suite.
func (s suite) run(out io.Writer) error {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = 30 * time.Minute
	}
	// The test program ends itself, with the stacks of what hangs.
	ctx, cancel := context.WithTimeout(context.Background(), timeout+30*time.Second)
	defer cancel()
	dir := filepath.Join(payloadDir, "tests", s.dir())
	test := []string{filepath.Join(dir, "test"), "-test.v", "-test.count=1", "-test.parallel=2", "-test.timeout=" + timeout.String(), "-test.run=" + s.pattern()}
	env := map[string]string{
		"V6NODE_BIN": filepath.Join(payloadDir, "bin"), "V6NODE_BUNDLE": filepath.Join(payloadDir, "bundle"), "V6NODE_TEST_PATIENCE": patience,
	}
	if s.Installed {
		env["V6NODE_DEB"] = filepath.Join(payloadDir, packageFile)
	}
	for k, v := range s.Env {
		env[k] = v
	}
	var args []string
	if s.HideSystemd {
		args = []string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run/systemd && exec "$@"`, "sh"}
	}
	args = append(args, test...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = os.Environ()
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

// pattern selects the suite's tests, or what was asked for in their place.
func (s suite) pattern() string {
	if s.Only != "" {
		return s.Only
	}
	var each []string
	for _, t := range s.Tests {
		parts := strings.Split(t, "/")
		for i, p := range parts {
			parts[i] = "^" + regexp.QuoteMeta(p) + "$"
		}
		each = append(each, strings.Join(parts, "/"))
	}
	return strings.Join(each, "|")
}

// lines calls f for each line of what the machine says, with a note if it is one.
func lines(r io.Reader, f func(string, *note) error) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			line = strings.TrimRight(line, "\r\n")
			var n *note
			if text, ok := strings.CutPrefix(line, mark); ok {
				n = &note{}
				if err := json.Unmarshal([]byte(text), n); err != nil {
					return fmt.Errorf("the machine says %q: %w", line, err)
				}
			}
			if err := f(line, n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
