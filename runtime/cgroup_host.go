package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cgroupHost is where this host has its control groups.
type cgroupHost struct {
	version     int               // 2 when the unified hierarchy is the only one, else 1
	controllers map[string]string // v1: mount point of each controller
	accounting  map[string]string // v1: mount point of those that only count
	legacy      []string          // v1: mount points of all controllers, known or not
	unified     string            // mount point of cgroup2, if there is one
	roots       []string          // all mount points: runc makes a group in each
	base        string            // the group above ours, which is not ours to change; "" at the top
	none        bool              // we may make none
}

// maxMountinfo bounds what is read of the mount table.
const maxMountinfo = 16 << 20

func findCgroupHost() (*cgroupHost, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, &Error{Op: "find the control groups", Cause: err}
	}
	defer f.Close()
	h, err := parseCgroupHost(io.LimitReader(f, maxMountinfo))
	if err != nil {
		return nil, &Error{Op: "find the control groups", Cause: err}
	}
	return h, nil
}

// parseCgroupHost reads a mountinfo (proc_pid_mountinfo(5)).
func parseCgroupHost(r io.Reader) (*cgroupHost, error) {
	h := &cgroupHost{controllers: map[string]string{}, accounting: map[string]string{}}
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		// 36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		left, right, ok := strings.Cut(scan.Text(), " - ")
		fields, last := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 6 || len(last) < 3 {
			continue
		}
		at := unescapeMount(fields[4])
		switch last[0] {
		case "cgroup":
			if !strings.Contains(last[2], "name=") && !slices.Contains(h.legacy, at) {
				h.legacy = append(h.legacy, at)
			}
			for opt := range strings.SplitSeq(last[2], ",") {
				if slices.Contains(v1Controllers, opt) && h.controllers[opt] == "" {
					h.controllers[opt] = at
				}
				if slices.Contains(v1Accounting, opt) && h.accounting[opt] == "" {
					h.accounting[opt] = at
				}
			}
		case "cgroup2":
			if h.unified == "" {
				h.unified = at
			}
		default:
			continue
		}
		if !slices.Contains(h.roots, at) {
			h.roots = append(h.roots, at)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, err
	}
	switch {
	case len(h.controllers) > 0:
		h.version = 1
	case h.unified != "":
		h.version = 2
	default:
		return nil, errors.New("no cgroup file system is mounted; mount one at /sys/fs/cgroup")
	}
	return h, nil
}

// Controllers says which version of control groups this machine has, and which
// of the controllers that limits need it lacks.
func Controllers() (version int, missing []string, err error) {
	h, err := findCgroupHost()
	if err != nil {
		return 0, nil, err
	}
	var have []string
	if h.version == 2 {
		text, err := textValue(h.file("", "", "cgroup.controllers"))
		if err != nil {
			return 0, nil, &Error{Op: "find the controllers", Cause: err}
		}
		have = strings.Fields(text)
	} else {
		have = slices.Collect(maps.Keys(h.controllers))
	}
	for _, c := range v1Controllers { // version 2 calls them the same
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	return h.version, missing, nil
}

// v1Controllers are the ones that limits are put on.
var v1Controllers = []string{"memory", "cpu", "cpuset", "pids"}

// v1Accounting are those that only count. A kernel may lack them.
var v1Accounting = []string{"cpuacct", "blkio"}

// unescapeMount undoes the \040 for a space and the like.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// file is the path of a group's file; controller counts on v1 only.
func (h *cgroupHost) file(controller, rel, name string) string {
	root := h.unified
	if h.version == 1 {
		root = h.controllers[controller]
	}
	return filepath.Join(root, rel, name)
}

// maxCgroupFile bounds what is read of one of the kernel's files.
const maxCgroupFile = 1 << 20

func textValue(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCgroupFile))
	return strings.TrimSpace(string(b)), err
}

// intValue reads a number; "max" and what the kernel writes for no limit are 0.
func intValue(file string) (int64, error) {
	s, err := textValue(file)
	if err != nil {
		return 0, err
	}
	return parseLimit(file, s)
}

func parseLimit(file, s string) (int64, error) {
	if s == "max" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s has %q where a number should be", file, oneLine(s))
	}
	// v1 writes -1 (CPU) and 2^63 rounded down to a page (memory).
	if n < 0 || n >= 1<<62 {
		return 0, nil
	}
	return n, nil
}

// keyedValue reads the number after key in a file of lines "key number".
func keyedValue(file, key string) (int64, error) {
	s, err := textValue(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(s) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			return parseLimit(file, v)
		}
	}
	return 0, fmt.Errorf("%s has no %s; the kernel is too old", file, key)
}

// writeValue writes in one call, as the kernel's files want it.
func writeValue(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func writeInt(file string, n int64) error { return writeValue(file, strconv.FormatInt(n, 10)) }
