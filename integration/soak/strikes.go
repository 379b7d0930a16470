package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/v6node/v6node/integration/faultproxy"
)

// strike is a way to disturb. It returns when what it did is mended again, as
// far as somebody outside has to mend it.
type strike struct {
	name string
	do   func(*soak, context.Context, *member) error
}

var allStrikes = []strike{
	{"node killed", (*soak).killNode},
	{"containerd killed", (*soak).killContainerd},
	{"server away", (*soak).serverAway},
	{"connection refused", func(s *soak, ctx context.Context, n *member) error {
		return s.disturb(ctx, n, faultproxy.Fault{Refuse: true})
	}},
	{"connections broken", func(s *soak, ctx context.Context, n *member) error {
		return s.disturb(ctx, n, faultproxy.Fault{End: faultproxy.Reset, Up: int64(s.number(20_000)), Down: int64(s.number(20_000))})
	}},
	{"sockets cut", func(s *soak, _ context.Context, n *member) error { s.lab.Server.CloseSockets(n.ID()); return nil }},
	{"sockets frozen", func(s *soak, _ context.Context, n *member) error { s.lab.Server.FreezeSockets(n.ID()); return nil }},
}

func strikeNames() (names []string) {
	for _, k := range allStrikes {
		names = append(names, k.name)
	}
	return names
}

// strikes disturbs at random until over ends; what was begun is completed.
func (s *soak) strikes(ctx, over context.Context) error {
	for {
		select {
		case <-over.Done():
			return ctx.Err()
		case <-time.After(time.Second + time.Duration(s.number(5000))*time.Millisecond):
		}
		k, n := allStrikes[s.number(len(allStrikes))], s.nodes[s.number(nodes)]
		if err := k.do(s, ctx, n); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		s.mu.Lock()
		s.struck[k.name]++
		s.mu.Unlock()
	}
}

func (s *soak) killNode(ctx context.Context, n *member) error {
	n.lock.Lock()
	defer n.lock.Unlock()
	began := time.Now()
	n.Kill()
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.lab.Server.WaitNode(wait, n.ID(), false); err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	if err := n.WaitOnline(wait); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slowest = max(s.slowest, time.Since(began))
	return nil
}

// killContainerd leaves it to the node to start another one.
func (s *soak) killContainerd(_ context.Context, n *member) error {
	b, err := os.ReadFile(filepath.Join(n.StateDir, "containerd-state", "containerd.json"))
	if err != nil {
		return err
	}
	var r struct{ PID int }
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID))
	if err != nil || !bytes.Contains(command, []byte(n.StateDir)) {
		return nil // it is dead already
	}
	if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// disturb breaks a node's connections for a moment.
func (s *soak) disturb(ctx context.Context, n *member, f faultproxy.Fault) error {
	if err := n.wire.Break(f); err != nil {
		return err
	}
	select {
	case <-time.After(time.Duration(100+s.number(2000)) * time.Millisecond):
	case <-ctx.Done():
	}
	return n.wire.Set(faultproxy.Fault{})
}

func (s *soak) serverAway(ctx context.Context, _ *member) error {
	s.lab.Server.Stop()
	select {
	case <-time.After(time.Duration(100+s.number(2000)) * time.Millisecond):
	case <-ctx.Done():
	}
	return s.lab.Server.Start()
}

// usage is the most that a node's process was seen to use.
type usage struct {
	memory int64 // bytes
	files  int
}

// measure looks at the nodes once a second until ctx ends.
func (s *soak) measure(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, n := range s.nodes {
			n.lock.Lock()
			proc := fmt.Sprintf("/proc/%d", n.PID())
			b, _ := os.ReadFile(filepath.Join(proc, "statm")) // it may have just ended
			fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
			n.lock.Unlock()
			if f := strings.Fields(string(b)); len(f) > 1 {
				pages, _ := strconv.ParseInt(f[1], 10, 64)
				n.use.memory = max(n.use.memory, pages*int64(os.Getpagesize()))
			}
			n.use.files = max(n.use.files, len(fds))
		}
	}
}

// left looks for what ended nodes may not leave: processes, mounts, control
// groups, and files of runs.
func (s *soak) left(dir string) error {
	var found []error
	if err := s.processesEnd(dir); err != nil {
		found = append(found, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		found = append(found, err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			found = append(found, fmt.Errorf("a mount is left: %s", strings.TrimSpace(line)))
		}
	}
	for _, n := range s.nodes {
		for _, sub := range []string{"runs", "jobs", "released"} {
			list, err := os.ReadDir(filepath.Join(n.StateDir, "work", sub))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				found = append(found, err)
			}
			for _, e := range list {
				found = append(found, fmt.Errorf("node %s has left %s/%s", n.Name, sub, e.Name()))
			}
		}
		instance, err := os.ReadFile(filepath.Join(n.StateDir, "instance"))
		if err != nil {
			found = append(found, err)
			continue
		}
		groups, err := filepath.Glob("/sys/fs/cgroup/*/v6node/" + strings.TrimSpace(string(instance)) + "/*")
		if err != nil {
			found = append(found, err)
		}
		for _, g := range groups {
			if info, err := os.Stat(g); err == nil && info.IsDir() {
				found = append(found, fmt.Errorf("a control group is left: %s", g))
			}
		}
	}
	return errors.Join(found...)
}

// processesEnd waits a moment for shims, which end after their sandboxes.
func (s *soak) processesEnd(dir string) error {
	end := time.Now().Add(10 * time.Second)
	for {
		var left []string
		list, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, f := range list {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
				left = append(left, strings.ReplaceAll(string(b), "\x00", " "))
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes are left: %q", left)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
