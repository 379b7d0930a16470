package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Probe is what runs in the containers; it does not return. The first argument
// says what to do. A program that is to serve as Options.Program calls it first
// of all when it was started as ProbeName.
func Probe(args []string) {
	if len(args) == 0 {
		args = []string{"exit", "0"}
	}
	must(probe(args[0], args[1:]))
	os.Exit(0)
}

func probe(what string, args []string) error {
	number := func() (int, error) {
		if len(args) == 0 {
			return 0, fmt.Errorf("%s needs a number", what)
		}
		return strconv.Atoi(args[0])
	}
	switch what {
	case "exit":
		code, err := number()
		if err != nil {
			return err
		}
		os.Exit(code)
	case "report":
		return tell()
	case "lines":
		n, err := number()
		if err != nil {
			return err
		}
		out, errOut := bufio.NewWriter(os.Stdout), bufio.NewWriter(os.Stderr)
		for i := range n {
			fmt.Fprintln(out, i)
			if i%100 == 0 {
				fmt.Fprintln(errOut, i)
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		return errOut.Flush()
	case "binary":
		_, err := os.Stdout.Write(bytes.Repeat(allBytes(), 1000))
		return err
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
	case "tick":
		// Lines without end, until told to.
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM)
		for i := 0; ; i++ {
			fmt.Println("tick", i)
			select {
			case <-ended:
				fmt.Println("end")
				return nil
			case <-time.After(5 * time.Millisecond):
			}
		}
	case "oom":
		eat()
	case "oom-child":
		// The child becomes what the kernel kills first.
		child := exec.Command("/proc/self/exe", "oom-first")
		child.Args[0] = ProbeName
		err := child.Run()
		fmt.Println("child:", err)
		os.Exit(5)
	case "oom-first":
		// May not be allowed; then memory alone decides.
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
		eat()
	case "children":
		n, err := number()
		if err != nil {
			return err
		}
		return children(n)
	case "read":
		_, err := os.Stdin.Read(make([]byte, 1)) // until the parent ends
		return ignoreEOF(err)
	case "connect":
		for _, address := range args {
			conn, err := net.DialTimeout("tcp", address, 10*time.Second)
			if err == nil {
				err = conn.Close()
			}
			fmt.Printf("%s %s\n", address, verdict(err))
		}
	default:
		return fmt.Errorf("%s is nothing that the probe can do", what)
	}
	return nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
}

func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// allBytes is every value of a byte but those that end a line.
func allBytes() []byte {
	all := make([]byte, 0, 256)
	for i := range 256 {
		if i != '\n' && i != '\r' {
			all = append(all, byte(i))
		}
	}
	return all
}

// eat takes memory, up to 4 GiB.
func eat() {
	var all [][]byte
	for range 1 << 12 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Println("ate", len(all), "MiB")
	os.Exit(1)
}

// children starts up to n processes that wait, and says how many there could be.
func children(n int) error {
	wait, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	started := 0
	var last error
	for range n {
		if _, last = os.StartProcess("/proc/self/exe", []string{ProbeName, "read"}, &os.ProcAttr{Files: []*os.File{wait, nil, nil}}); last != nil {
			break
		}
		started++
	}
	fmt.Println(started, verdict(last))
	return nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// tell reports what a container may and sees.
func tell() error {
	out := map[string]string{}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	write := func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	}
	for name, path := range map[string]string{
		"write root": "/x", "write sysctl": "/proc/sys/kernel/hostname", "write in": "/in/x", "write submount": "/in/sub/x", "write out": "/out/x",
	} {
		out[name] = verdict(write(path))
	}
	out["mount"] = verdict(syscall.Mount("none", "/tmp", "tmpfs", 0, ""))
	out["chown"] = verdict(os.Chown("/out/x", 1, 1))
	// A thread that could do it would not be used again.
	runtime.LockOSThread()
	out["unshare"] = verdict(syscall.Unshare(syscall.CLONE_NEWUTS))
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
		b := make([]byte, 1)
		f, err := os.Open(path)
		if err != nil {
			continue // not every kernel has it
		}
		if n, _ := f.Read(b); n > 0 {
			out["unmasked"] += path + " "
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	out["resolv.conf"] = string(resolv)
	if out["hostname"], err = os.Hostname(); err != nil {
		return err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	out["processes"] = strconv.Itoa(len(processes))
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		out["interfaces"] += i.Name + " "
	}
	out["env A"] = os.Getenv("A")
	out["uid"] = strconv.Itoa(os.Getuid())
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		out["uid_map"] = strings.Join(strings.Fields(string(b)), " ")
	}
	if info, err := os.Stat("/in/owned"); err == nil {
		st := info.Sys().(*syscall.Stat_t)
		out["owner"] = fmt.Sprint(st.Uid, ":", st.Gid)
		_, err := os.ReadFile("/in/owned")
		out["read owned"] = verdict(err)
	}
	out["stdin"], err = os.Readlink("/proc/self/fd/0")
	if err != nil {
		out["stdin"] = err.Error()
	}
	out["oom_score_adj"] = "unreadable"
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		out["oom_score_adj"] = strings.TrimSpace(string(b))
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
