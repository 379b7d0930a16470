// Command probe is what the integration tests of package runtime run in
// containers. Its first argument says what to do.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	switch os.Args[1] {
	case "exit":
		code, err := strconv.Atoi(os.Args[2])
		must(err)
		os.Exit(code)
	case "report":
		report()
	case "lines":
		n, err := strconv.Atoi(os.Args[2])
		must(err)
		w := bufio.NewWriter(os.Stdout)
		for i := range n {
			fmt.Fprintln(w, i)
		}
		must(w.Flush())
	case "binary":
		// No newline for a long while, every byte value, and none at the end.
		all := make([]byte, 0, 256)
		for i := range 256 {
			if i != '\n' && i != '\r' {
				all = append(all, byte(i))
			}
		}
		_, err := os.Stdout.Write(bytes.Repeat(all, 1000))
		must(err)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		never := make(chan os.Signal, 1)
		signal.Notify(never, syscall.SIGUSR1)
		fmt.Println("ready")
		<-never
	case "wait":
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM)
		fmt.Println("ready")
		<-ended
		os.Exit(3)
	case "oom":
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			if len(all) > 1<<12 {
				os.Exit(1)
			}
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
}

// report tells what a container may and sees.
func report() {
	out := map[string]string{}
	status, err := os.ReadFile("/proc/self/status")
	must(err)
	for line := range strings.Lines(string(status)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	try := func(name string, f func() error) {
		out[name] = "ok"
		if err := f(); err != nil {
			out[name] = err.Error()
		}
	}
	write := func(path string) func() error {
		return func() error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	try("write root", write("/x"))
	try("write sysctl", write("/proc/sys/kernel/hostname"))
	try("write in", write("/in/x"))
	try("write submount", write("/in/sub/x"))
	try("write out", write("/out/x"))
	try("mount", func() error { return syscall.Mount("none", "/tmp", "tmpfs", 0, "") })
	try("chown", func() error { return os.Chown("/out/x", 1, 1) })
	try("unshare", func() error { return syscall.Unshare(syscall.CLONE_NEWUSER) })
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
		b := make([]byte, 1)
		f, err := os.Open(path)
		if err != nil {
			continue // not every kernel has it
		}
		if n, _ := f.Read(b); n > 0 {
			out["unmasked"] += path + " "
		}
		must(f.Close())
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	must(err)
	out["resolv.conf"] = string(resolv)
	host, err := os.Hostname()
	must(err)
	out["hostname"] = host
	procs, err := filepath.Glob("/proc/[0-9]*")
	must(err)
	out["processes"] = fmt.Sprint(len(procs))
	out["env A"] = os.Getenv("A")
	tty := "yes"
	if fi, err := os.Stdin.Stat(); err != nil || fi.Mode()&os.ModeCharDevice == 0 || isNull() {
		tty = "no"
	}
	out["tty"] = tty
	must(json.NewEncoder(os.Stdout).Encode(out))
}

func isNull() bool {
	name, err := os.Readlink("/proc/self/fd/0")
	return err == nil && name == "/dev/null"
}
