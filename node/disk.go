package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ManagedStore is the directory of a node's own containerd, in its state directory.
const ManagedStore = "containerd"

const (
	// askDisksEvery is how long the word on the disks counts.
	askDisksEvery = 5 * time.Second
	// probeName is the file by which a disk is tried, and probeSize its size.
	probeName = ".probe"
	probeSize = 4096
	// leastImageSpace and leastImageInodes are with what the runtime's store counts
	// as full, where only the runtime can try.
	leastImageSpace  = 1 << 20
	leastImageInodes = 16
)

// disks are those that the node looks after.
type disks struct {
	probe sync.Mutex // held while one is tried
	mu    sync.Mutex
	// stores are where the runtime keeps its images, for when it does not answer.
	stores []string
}

// checkDisks says which disk cannot be written to, or nil.
func (n *Node) checkDisks(ctx context.Context) error {
	var faults []string
	managed := n.cfg.Runtime.Endpoint == ""
	dirs := []string{n.stateDir, n.files.Dir}
	if managed {
		dirs = append(dirs, filepath.Join(n.stateDir, ManagedStore))
	}
	for _, dir := range dirs {
		if err := n.disks.try(dir); err != nil {
			faults = append(faults, fmt.Sprintf("%s cannot be written to (%v): make room or mend its disk", dir, err))
		}
	}
	for _, dir := range n.foreignStores(ctx, managed) {
		s, err := n.space(dir)
		switch {
		case err != nil:
			faults = append(faults, err.Error())
		case s.ReadOnly:
			faults = append(faults, fmt.Sprintf("the runtime's image store %s is on a read-only file system: mend its disk", dir))
		case s.Free < leastImageSpace || s.Inodes > 0 && s.FreeInodes < leastImageInodes:
			faults = append(faults, fmt.Sprintf("the runtime's image store %s is on a full file system (%d bytes and %d inodes free): make room, for example by `v6node gc --all`", dir, s.Free, s.FreeInodes))
		}
	}
	if faults == nil {
		return nil
	}
	return errors.New(strings.Join(faults, "; "))
}

// foreignStores are where a runtime that is not the node's own keeps its images.
func (n *Node) foreignStores(ctx context.Context, managed bool) []string {
	if managed {
		return nil
	}
	n.disks.mu.Lock()
	defer n.disks.mu.Unlock()
	if dirs, err := n.images.ImageDirectories(ctx); err == nil {
		n.disks.stores = dirs
	}
	return n.disks.stores
}

// try writes a small file and removes it.
func (d *disks) try(dir string) error {
	d.probe.Lock()
	defer d.probe.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, probeName)
	err := os.WriteFile(path, bytes.Repeat([]byte{1}, probeSize), 0o600)
	if gone := os.Remove(path); err == nil {
		err = gone
	}
	return err
}
