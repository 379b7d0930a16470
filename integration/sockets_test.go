//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestOnlyWhatTheManualListsListens is about a node with a containerd of its own: another runtime's sockets
// are those of its administrator.
func TestOnlyWhatTheManualListsListens(t *testing.T) { socketsListed(t, newWorld(t, embeddedKind)) }

// inodes are the sockets that a process has open.
func inodes(pid int) map[string]bool {
	out := map[string]bool{}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return out // it has ended
	}
	for _, f := range files {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, f.Name()))
		if inode, ok := strings.CutPrefix(target, "socket:["); ok && err == nil {
			out[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return out
}

// waiting lists the sockets in a process's network that wait for somebody, by inode.
func waiting(t *testing.T, pid int) map[string]string {
	t.Helper()
	out := map[string]string{}
	read := func(file string) [][]string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
		if os.IsNotExist(err) {
			return nil // the kernel lacks it
		}
		if err != nil {
			t.Fatal(err)
		}
		var rows [][]string
		for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			if i > 0 {
				rows = append(rows, strings.Fields(line))
			}
		}
		return rows
	}
	for _, file := range []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"} {
		for _, f := range read(file) {
			if len(f) < 10 || strings.HasPrefix(file, "tcp") && f[3] != "0A" {
				continue
			}
			out[f[9]] = strings.TrimRight(file, "6") + " " + hexAddress(t, f[1])
		}
	}
	for _, f := range read("packet") {
		out[f[len(f)-1]] = "packet"
	}
	for _, f := range read("unix") {
		if flags, err := strconv.ParseUint(f[3], 16, 64); err == nil && flags&0x10000 != 0 { // __SO_ACCEPTCON
			out[f[6]] = "unix " + strings.Join(f[7:], " ")
		}
	}
	return out
}

// hexAddress reads an address as /proc/net has it: words of 4 bytes in the machine's order.
func hexAddress(t *testing.T, text string) string {
	t.Helper()
	host, port, _ := strings.Cut(text, ":")
	var ip net.IP
	for i := 0; i+8 <= len(host); i += 8 {
		word, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		ip = append(ip, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(ip.String(), fmt.Sprint(p))
}

// listed reads the table of sockets of the manual: owner, place, address, mode.
func listed(t *testing.T) (rows []string, modes map[string]string) {
	t.Helper()
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| whose | where | address |")
	if !found {
		t.Fatal("the manual has no table of sockets")
	}
	modes = map[string]string{}
	for i, line := range strings.Split(table, "\n") {
		if i < 2 {
			continue // the rest of the heading
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) < 5 {
			break
		}
		for _, address := range regexp.MustCompile("`[^`]+`").FindAllString(cells[2], -1) {
			row := cells[0] + " | " + cells[1] + " | " + strings.Trim(address, "`")
			rows, modes[row] = append(rows, row), cells[3]
		}
	}
	return rows, modes
}

// socketsListed opens all that a node can open, and compares every socket of the node, its containerd, the
// monitors and the sandboxes with the manual's table, both ways.
func socketsListed(t *testing.T, w *world) {
	name, address := machineName(t)
	port := says(t, net.JoinHostPort(address, "0"), "database")
	metrics := freePort(t, "127.0.0.1")
	n := w.start(t, nodeOptions{Extra: map[string]any{
		"databases": []map[string]any{sqlDatabase("db", name, port), sqlDatabase("far", "198.51.100.7", "5432")},
		"metrics":   map[string]any{"listen": "127.0.0.1:" + metrics},
		"sif":       map[string]any{"directories": []string{w.dir}},
		"whitelist": map[string]any{"domains": []string{"example.org"}},
	}})
	g := n.hold(t, databases("db", "far"))
	s, err := n.runtime(t).SandboxStatus(within(t), n.sandboxes(t, g.run)[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(n.endpoint(t), "unix://")
	sockets := filepath.Dir(socket)
	shim := regexp.MustCompile(`/s/[0-9a-f]{64}$`)
	descriptor := regexp.MustCompile(`^/proc/self/fd/\d+/`)
	dynamic := regexp.MustCompile(`^127\.0\.0\.1:(\d+)$`)
	named := func(owner, address string) string {
		kind, rest, _ := strings.Cut(address, " ")
		if kind == "unix" {
			rest = descriptor.ReplaceAllString(rest, "STATE_DIR/") // bound through its directory
			rest = strings.Replace(rest, n.StateDir+"/", "STATE_DIR/", 1)
			rest = strings.Replace(rest, sockets+"/", "RUN_DIR/", 1)
			return "unix " + shim.ReplaceAllString(rest, "/s/ID")
		}
		switch {
		case rest == "127.0.0.1:"+metrics:
			return kind + " metrics.listen"
		case owner == "node" && rest == "127.0.0.2:"+strconv.Itoa(alphaPort):
			return kind + " 127.0.0.2:proxy_port"
		case owner == "node" && rest == "127.0.0.3:"+port:
			return kind + " DATABASE"
		case owner == "node" && rest == "198.51.100.7:5432":
			return kind + " DATABASE"
		case owner == "node" && rest == "127.0.0.4:3128":
			return kind + " 127.0.0.N:3128"
		case dynamic.MatchString(rest):
			return kind + " 127.0.0.1:PORT"
		}
		return kind + " " + rest
	}
	machine, sandbox := waiting(t, n.PID()), waiting(t, s.PID)
	var have []string
	paths := map[string]string{}
	collect := func(owner string, pid int) {
		for inode := range inodes(pid) {
			for place, all := range map[string]map[string]string{"machine": machine, "sandbox": sandbox} {
				if address, ok := all[inode]; ok {
					row := owner + " | " + place + " | " + named(owner, address)
					have = append(have, row)
					if path, isUnix := strings.CutPrefix(address, "unix "); isUnix {
						paths[row] = descriptor.ReplaceAllString(path, n.StateDir+"/")
					}
				}
			}
		}
	}
	collect("node", n.PID())
	for pid, args := range n.runtimeProcesses(t, sockets) {
		owner := "containerd"
		if strings.HasPrefix(filepath.Base(args), "containerd-shim") {
			owner = "shim"
		}
		collect(owner, pid)
	}
	collect("algorithm", s.PID)
	slices.Sort(have)
	have = slices.Compact(have)
	want, modes := listed(t)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("open is\n\t%s\nand the manual lists\n\t%s", strings.Join(have, "\n\t"), strings.Join(want, "\n\t"))
	}
	for row, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		dir, err := os.Stat(filepath.Dir(path))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprintf("%04o in %04o", info.Mode().Perm(), dir.Mode().Perm()); modes[row] != got {
			t.Errorf("%s (%s) has the mode %s, and the manual says %q", row, path, got, modes[row])
		}
	}
	g.release(t)
	completed[gated](t, n.finish(t, g.task))
}

// runtimeProcesses are the node's own containerd and its monitors, with their programs.
func (n *node) runtimeProcesses(t *testing.T, sockets string) map[int]string {
	t.Helper()
	out := map[int]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args := commandLine(pid)
		program, _, _ := strings.Cut(args, " ")
		if strings.HasPrefix(filepath.Base(program), "containerd") && (strings.Contains(args, sockets+"/") || strings.Contains(args, n.StateDir+"/")) {
			out[pid] = program
		}
	}
	if len(out) < 2 {
		t.Fatalf("the runtime's processes are %v", out)
	}
	return out
}
