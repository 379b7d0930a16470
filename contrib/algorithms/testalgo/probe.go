package main

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// report is what probe returns. Errors are reported as text where they arise: a
// probe that fails to look is a finding, not a failure.
type report struct {
	UID        int               `json:"uid"`
	GID        int               `json:"gid"`
	Groups     []int             `json:"groups"`
	PID        int               `json:"pid"`
	Hostname   string            `json:"hostname"`
	WorkingDir string            `json:"working_dir"`
	Status     map[string]string `json:"status"` // Cap*, NoNewPrivs, Seccomp, ... of /proc/self/status
	AppArmor   string            `json:"apparmor"`
	Interfaces []netInterface    `json:"interfaces"`
	Routes     []string          `json:"routes"`    // lines of /proc/net/route without the heading
	RoutesV6   []string          `json:"routes_v6"` // lines of /proc/net/ipv6_route
	Listeners  []string          `json:"listeners"` // local addresses of /proc/net/tcp in state LISTEN, hexadecimal
	Mounts     []string          `json:"mounts"`    // /proc/self/mountinfo
	Cgroups    []string          `json:"cgroups"`
	Limits     []string          `json:"limits"`
	Namespaces map[string]string `json:"namespaces"`
	Processes  []string          `json:"processes"`
	Devices    []string          `json:"devices"`
	Files      []visibleFile     `json:"files"` // all below /mnt
	Root       []string          `json:"root"`  // names in /
	Hosts      string            `json:"hosts"`
	ResolvConf string            `json:"resolv_conf"`
	Readable   map[string]string `json:"readable"` // path -> "" or why not
	Writable   map[string]string `json:"writable"` // path -> "" or why not
	Connect    map[string]string `json:"connect"`  // address -> "" or why not
	Environ    []string          `json:"environ"`  // names
}

type netInterface struct {
	Name      string   `json:"name"`
	Flags     string   `json:"flags"`
	Addresses []string `json:"addresses"`
}

type visibleFile struct {
	Path     string `json:"path"`
	Mode     string `json:"mode"`
	Size     int64  `json:"size"`
	Readable bool   `json:"readable"`
}

func probe(in *contract.Input) (any, error) {
	var connect, write []string
	if _, err := in.Arg(-1, "connect", &connect); err != nil {
		return nil, err
	}
	if _, err := in.Arg(-1, "write", &write); err != nil {
		return nil, err
	}
	r := &report{
		UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid(), Status: map[string]string{}, Namespaces: map[string]string{},
		Readable: map[string]string{}, Writable: map[string]string{}, Connect: map[string]string{},
		AppArmor: strings.Join(lines("/proc/self/attr/current"), " "),
		Routes:   tail(lines("/proc/net/route")), RoutesV6: lines("/proc/net/ipv6_route"),
		Mounts: lines("/proc/self/mountinfo"), Cgroups: lines("/proc/self/cgroup"), Limits: tail(lines("/proc/self/limits")),
		Hosts: strings.Join(lines("/etc/hosts"), "\n"), ResolvConf: strings.Join(lines("/etc/resolv.conf"), "\n"),
		Root: names("/"), Devices: names("/dev"), Interfaces: interfaces(), Files: visible("/mnt"),
	}
	r.Groups, _ = os.Getgroups() // the report shows none then
	r.Hostname, _ = os.Hostname()
	r.WorkingDir, _ = os.Getwd()
	for _, line := range lines("/proc/self/status") {
		name, value, _ := strings.Cut(line, ":")
		r.Status[name] = strings.TrimSpace(value)
	}
	r.Listeners = listeners()
	for _, ns := range names("/proc/self/ns") {
		r.Namespaces[ns], _ = os.Readlink("/proc/self/ns/" + ns)
	}
	for _, name := range names("/proc") {
		if strings.Trim(name, "0123456789") == "" {
			r.Processes = append(r.Processes, name)
		}
	}
	for _, file := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/proc/1/environ"} {
		r.Readable[file] = why(readSome(file))
	}
	for _, dir := range append([]string{"/", "/etc", "/usr", "/bin", "/tmp", "/dev", "/dev/shm", "/mnt", "/mnt/data", "/mnt/tmp", "/sys", "/proc/sys/kernel"}, write...) {
		r.Writable[dir] = why(writeIn(dir))
	}
	for _, line := range os.Environ() {
		name, _, _ := strings.Cut(line, "=")
		r.Environ = append(r.Environ, name)
	}
	r.Connect = connectAll(connect)
	return r, nil
}

// listeners are the local addresses of sockets in state LISTEN.
func listeners() (list []string) {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for _, line := range tail(lines(file)) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "0A" {
				list = append(list, f[1])
			}
		}
	}
	return list
}

func why(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// lines returns a file's lines, or one that says why not.
func lines(name string) []string {
	data, err := os.ReadFile(name)
	if err != nil {
		return []string{"cannot be read: " + err.Error()}
	}
	text := strings.Trim(string(data), "\n\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// tail leaves out a heading.
func tail(list []string) []string {
	if len(list) < 1 {
		return nil
	}
	return list[1:]
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil && len(entries) == 0 {
		return []string{"cannot be read: " + err.Error()}
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func interfaces() []netInterface {
	list, err := net.Interfaces()
	if err != nil {
		return []netInterface{{Name: "cannot be read: " + err.Error()}}
	}
	var found []netInterface
	for _, i := range list {
		ni := netInterface{Name: i.Name, Flags: i.Flags.String()}
		addrs, err := i.Addrs()
		if err != nil {
			ni.Addresses = []string{"cannot be read: " + err.Error()}
		}
		for _, a := range addrs {
			ni.Addresses = append(ni.Addresses, a.String())
		}
		found = append(found, ni)
	}
	return found
}

// visible lists everything below a directory and tries to open each file.
func visible(root string) []visibleFile {
	var list []visibleFile
	// Unreadable directories are entries too; nothing stops the walk.
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		v := visibleFile{Path: path}
		if err != nil {
			v.Mode = "cannot be read: " + err.Error()
			list = append(list, v)
			return nil
		}
		if info, err := e.Info(); err == nil {
			v.Mode, v.Size = info.Mode().String(), info.Size()
		}
		v.Readable = readSome(path) == nil
		list = append(list, v)
		return nil
	})
	return list
}

// readSome opens a file and reads a byte, or opens and lists a directory.
func readSome(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		list, err := file.ReadDir(-1)
		if err == nil && len(list) == 0 {
			return fmt.Errorf("%s is empty", name)
		}
		return err
	}
	n, err := file.Read(make([]byte, 1))
	if n == 0 && err == io.EOF && !strings.HasPrefix(name, "/mnt/") {
		return fmt.Errorf("%s is empty", name)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// writeIn creates a file in a directory and removes it again. For a path that is no
// directory it opens the file for writing.
func writeIn(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		file, err := os.OpenFile(dir, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return file.Close()
	}
	name := filepath.Join(dir, fmt.Sprintf(".probe-%d", os.Getpid()))
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	if err := file.Close(); err != nil {
		return err
	}
	return syscall.Access(name, 0)
}

// connectAll tries all addresses at once: "host:port" for TCP, "udp:host:port",
// "unix:/path". A UDP socket that can send is connected.
func connectAll(addresses []string) map[string]string {
	results := make([]string, len(addresses))
	var all sync.WaitGroup
	for i, a := range addresses {
		all.Go(func() {
			network, target := "tcp", a
			for _, n := range []string{"udp", "unix", "tcp"} {
				if rest, ok := strings.CutPrefix(a, n+":"); ok {
					network, target = n, rest
					break
				}
			}
			conn, err := net.DialTimeout(network, target, 3*time.Second)
			if err == nil && network == "udp" {
				_, err = conn.Write([]byte("x"))
			}
			if conn != nil {
				conn.Close()
			}
			results[i] = why(err)
		})
	}
	all.Wait()
	found := map[string]string{}
	for i, a := range addresses {
		found[a] = results[i]
	}
	return found
}
