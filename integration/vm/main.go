package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tools are the programs that this machine needs, with Debian's packages.
var tools = map[string]string{"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs"}

// options are those of the command line.
type options struct {
	cache, mirror, suite, run string
	again, list               bool
	nice                      int
	timeout                   time.Duration
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "guest" {
		if err := guest(); err != nil {
			fmt.Fprintln(os.Stderr, "vm:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	flag.StringVar(&o.cache, "cache", filepath.Join(cache, "v6node-vm"), "directory for the machine's file system")
	flag.StringVar(&o.mirror, "mirror", "", "Debian mirror, as mmdebstrap takes it; Debian's own if empty")
	flag.StringVar(&o.suite, "suite", "", "run only the suites whose name contains this")
	flag.StringVar(&o.run, "run", "", "run the tests that match this pattern in place of a suite's own")
	flag.BoolVar(&o.again, "rebuild", false, "make the machine's file system anew")
	flag.BoolVar(&o.list, "list", false, "list the suites and exit")
	flag.IntVar(&o.nice, "nice", 5, "how much to give way to other programs, 0 to 19")
	flag.DurationVar(&o.timeout, "timeout", time.Hour, "time for everything but the making of the file system")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Programs have the priority of the thread that starts them, and end with it
	// (see command).
	runtime.LockOSThread()
	err = unix.Setpriority(unix.PRIO_PROCESS, 0, o.nice)
	if err == nil {
		err = test(ctx, o)
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "vm: FAIL:", strings.TrimSpace(line))
		}
		os.Exit(1)
	}
}

// test runs the suites in a machine. The error is nil only if all passed.
func test(ctx context.Context, o options) error {
	var plan []suite
	for _, s := range suites {
		if strings.Contains(s.Name, o.suite) {
			s.Only = o.run
			plan = append(plan, s)
		}
	}
	if len(plan) == 0 {
		return fmt.Errorf("no suite has %q in its name; -list shows them", o.suite)
	}
	if o.list {
		for _, s := range plan {
			fmt.Printf("%s (%s)\n  %s\n", s.Name, s.Package, strings.Join(s.Tests, "\n  "))
		}
		return nil
	}
	if err := needed(); err != nil {
		return err
	}
	repo, err := os.Getwd()
	if err != nil {
		return err
	}
	if !exists(filepath.Join(repo, "integration", "vm", "suites.go")) {
		return errors.New("start it in the root of the repository: go run ./integration/vm")
	}
	began := time.Now()
	im, err := findImage(ctx, o.cache, o.mirror, o.again)
	if err != nil {
		return err
	}
	made := time.Since(began)
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not over within %s", o.timeout))
	defer cancel()
	tmp, err := os.MkdirTemp("", "v6node-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	payload, err := makePayload(ctx, repo, tmp, plan)
	if err != nil {
		return err
	}
	m := &machine{image: im, payload: payload, dir: tmp, accel: accelerator(ctx, im), cpus: min(runtime.NumCPU(), 4), memory: "4G", bootTime: o.timeout / 3}
	v := &verdict{plan: plan}
	say("starting the machine (%s, %d CPUs, %s)", m.accel, m.cpus, m.memory)
	started := time.Now()
	err = m.run(ctx, func(line string, n *note) error {
		switch {
		case n == nil:
			if line != "" {
				fmt.Println(line)
			}
		case n.Ready != nil:
			say("the machine is up after %.0f s: Linux %s, virtualization %s", time.Since(started).Seconds(), n.Ready.Kernel, n.Ready.Virtualization)
		case n.Begin != "":
			say("=== %s", n.Begin)
		}
		return v.hear(line, n)
	})
	if err = errors.Join(err, v.err()); err != nil && (v.ready == nil || !v.done) {
		fmt.Fprintf(os.Stderr, "the machine's last words:\n%s\n", m.lastWords())
	}
	for _, r := range v.results {
		word := "ok"
		if r.err != nil {
			word = "FAIL"
		}
		say("%-4s %-28s %3d tests %6.0f s", word, r.suite.Name, r.passed, r.seconds)
	}
	say("file system %.0f s, machine %.0f s, all %.0f s", made.Seconds(), time.Since(started).Seconds(), time.Since(began).Seconds())
	return err
}

// needed checks what has to be there before anything is done.
func needed() error {
	if os.Geteuid() != 0 {
		return errors.New("the machine's file system is made by root: run it as root")
	}
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the machine is an amd64 one, and cannot be started on %s", runtime.GOARCH)
	}
	var missing []string
	for program, pkg := range tools {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("programs are missing; install them: apt-get install --no-install-recommends %s", strings.Join(missing, " "))
	}
	return nil
}

// command is a program in a group of its own, which is ended with ctx, and by the
// kernel if this program dies.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

func say(format string, args ...any) { fmt.Printf("vm: "+format+"\n", args...) }
