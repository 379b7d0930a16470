package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/internal/pidfd"
)

// record says which containerd process was started last for a state directory,
// and from what. It is what a restarted node finds its containerd by.
type record struct {
	PID    int    `json:"pid"`
	Start  uint64 `json:"start"` // clock ticks since boot, from /proc/PID/stat
	Boot   string `json:"boot"`  // /proc/sys/kernel/random/boot_id
	Build  string `json:"build"`
	Config string `json:"config"` // SHA-256 of config.toml
}

// readRecord returns nil without an error where there is none, or none that
// can be read: a record only helps to find a process, it is not the process.
func readRecord(path string) (*record, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r record
	if json.Unmarshal(b, &r) != nil || r.PID <= 1 {
		return nil, nil
	}
	return &r, nil
}

func (r *record) write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return replaceFile(path, append(b, '\n'), 0o600)
}

// replaceFile writes a file so that a reader sees the old or the new content.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// startTime reads when a process was started. A zombie is no process.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, pidfd.ErrEnded // it may also end between open and read
	}
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat returns field 22 of /proc/PID/stat. Field 2, the name, may contain
// anything, also spaces and parentheses; nothing after it does.
func parseStat(b []byte) (uint64, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, fmt.Errorf("unexpected content of a stat file: %.80q", b)
	}
	f := strings.Fields(string(b[i+1:]))
	const state, start = 0, 19 // fields 3 and 22
	if len(f) <= start {
		return 0, fmt.Errorf("unexpected content of a stat file: %.80q", b)
	}
	if f[state] == "Z" || f[state] == "X" {
		return 0, pidfd.ErrEnded
	}
	n, err := strconv.ParseUint(f[start], 10, 64)
	if err != nil {
		return 0, err
	}
	return n, nil
}
