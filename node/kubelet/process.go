package kubelet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// programs are the kubelet and those that have one inside, with the socket that
// they use when nothing else is said; "" is not known.
var programs = map[string]string{
	"kubelet":    defaultSocket,
	"hyperkube":  defaultSocket,
	"k3s":        k3sSocket,
	"k3s-server": k3sSocket,
	"k3s-agent":  k3sSocket,
	"kubelite":   "",
}

// Sockets that kubelets use by default.
const (
	defaultSocket = "/run/containerd/containerd.sock" // KubeletConfiguration v1beta1
	k3sSocket     = "/run/k3s/containerd/containerd.sock"
)

// endpointFlag is the kubelet's flag that wins over its configuration.
const endpointFlag = "container-runtime-endpoint"

// machine is where processes and files are looked for.
type machine struct {
	root string
	// connected returns the inodes of the sockets at the other end of
	// connections to the unix socket.
	connected func(socket string) (map[uint32]bool, error)
}

// process looks for a kubelet's process that uses the socket. What cannot be
// read, since processes end and others are not ours, is no sign.
func (m machine) process(socket string) string {
	entries, err := os.ReadDir(filepath.Join(m.root, "proc"))
	if err != nil {
		return ""
	}
	peers, err := m.connected(socket)
	if err != nil {
		peers = nil // the kernel cannot tell
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args := m.cmdline(pid)
		name := m.program(pid, args)
		if name == "" {
			continue
		}
		if m.holds(pid, peers) {
			return fmt.Sprintf("process %d, %s, is connected to it", pid, name)
		}
		if used, by := m.endpoint(pid, name, args); used != "" && m.same(pid, used, socket) {
			return fmt.Sprintf("process %d, %s, uses it by its %s", pid, name, by)
		}
	}
	return ""
}

func (m machine) proc(pid int, elem ...string) string {
	return filepath.Join(append([]string{m.root, "proc", strconv.Itoa(pid)}, elem...)...)
}

func (m machine) cmdline(pid int) []string {
	b, err := readBounded(m.proc(pid, "cmdline"))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// program returns the name by which a process is a kubelet, else "". k3s writes
// its whole title into the first argument.
func (m machine) program(pid int, args []string) string {
	if len(args) == 0 {
		return "" // a thread of the kernel, or gone
	}
	title, _, _ := strings.Cut(args[0], " ")
	names := []string{filepath.Base(title)}
	if comm, err := readBounded(m.proc(pid, "comm")); err == nil {
		names = append(names, strings.TrimSpace(string(comm)))
	}
	for _, name := range names {
		if _, ok := programs[name]; ok {
			return name
		}
	}
	return ""
}

// holds tells whether a process has one of the sockets open.
func (m machine) holds(pid int, inodes map[uint32]bool) bool {
	if len(inodes) == 0 {
		return false
	}
	fds, err := os.ReadDir(m.proc(pid, "fd"))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		link, err := os.Readlink(m.proc(pid, "fd", fd.Name()))
		if err != nil {
			continue
		}
		text, ok := strings.CutPrefix(link, "socket:[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32)
		if ok && err == nil && inodes[uint32(inode)] {
			return true
		}
	}
	return false
}

// endpoint returns the socket that a kubelet uses and what says so.
func (m machine) endpoint(pid int, name string, args []string) (socket, by string) {
	if e := flagValue(args, endpointFlag); e != "" {
		return socketPath(e), "flag --" + endpointFlag
	}
	if file := flagValue(args, "config"); filepath.IsAbs(file) && !strings.HasPrefix(name, "k3s") {
		if e := configEndpoint(m.proc(pid, "root", file)); e != "" {
			return socketPath(e), "configuration " + file
		}
	}
	return programs[name], "default"
}

// flagValue finds --name=value or --name value, the last one that is given.
func flagValue(args []string, name string) string {
	value := ""
	for i, a := range args {
		key, v, joined := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-"), "=")
		switch {
		case key != name || !strings.HasPrefix(a, "-"):
		case joined:
			value = v
		case i+1 < len(args):
			value = args[i+1]
		}
	}
	return value
}

// configEndpoint reads a KubeletConfiguration, in YAML or JSON; "" when it names
// no endpoint or cannot be read.
func configEndpoint(file string) string {
	b, err := readBounded(file)
	if err != nil {
		return ""
	}
	var conf struct {
		Endpoint string `yaml:"containerRuntimeEndpoint"`
	}
	if yaml.Unmarshal(b, &conf) != nil {
		return ""
	}
	return conf.Endpoint
}

// same tells whether the path that a process uses is the socket. Its root
// directory may be another one: then its files count.
func (m machine) same(pid int, used, socket string) bool {
	theirs, err := os.Stat(m.proc(pid, "root", used))
	if err != nil {
		if !errors.Is(err, fs.ErrPermission) {
			return false
		}
		return samePath(used, socket)
	}
	ours, err := os.Stat(socket)
	return err == nil && os.SameFile(theirs, ours)
}

func samePath(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// asks is how often the kernel is asked: it counts its sockets from one part of an
// answer to the next, and leaves some out when others go in between.
const asks = 4

// connected asks the kernel (sock_diag(7)) who is at the other end.
func connected(socket string) (map[uint32]bool, error) {
	peers := map[uint32]bool{}
	for range asks {
		all, err := unixSockets()
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			if s.peer != 0 && filepath.IsAbs(s.name) && samePath(s.name, socket) {
				peers[s.peer] = true
			}
		}
	}
	return peers, nil
}

// configured looks into the files that kubeadm and distributions write.
func (m machine) configured(socket string) string {
	in := func(file string) string { return filepath.Join(m.root, file) }
	const flags = "var/lib/kubelet/kubeadm-flags.env"
	if b, err := readBounded(in(flags)); err == nil {
		words := strings.FieldsFunc(string(b), func(r rune) bool { return strings.ContainsRune(" \t\n\"'", r) })
		words = slices.DeleteFunc(words, func(w string) bool { return strings.HasSuffix(w, "_ARGS=") })
		if e := flagValue(words, endpointFlag); e != "" && samePath(socketPath(e), socket) {
			return "/" + flags
		}
	}
	for _, file := range []string{"var/lib/kubelet/config.yaml", "etc/kubernetes/kubelet/config.json", "etc/kubernetes/kubelet-config.yaml"} {
		if e := configEndpoint(in(file)); e != "" && samePath(socketPath(e), socket) {
			return "/" + file
		}
	}
	return ""
}

// maxFile bounds what is read of a file of others.
const maxFile = 1 << 20

// readBounded reads no more than maxFile bytes, and does not wait on a FIFO.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return bytes.ToValidUTF8(b, []byte("?")), err
}
