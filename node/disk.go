package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

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
	for _, dir := range slices.Compact([]string{n.stateDir, n.files.Dir}) {
		if err := n.disks.try(dir); err != nil {
			faults = append(faults, fmt.Sprintf("%s cannot be written to (%v): make room or mend its disk", dir, err))
		}
	}
	n.disks.mu.Lock()
	defer n.disks.mu.Unlock()
	if dirs, err := n.images.ImageDirectories(ctx); err == nil {
		n.disks.stores = dirs
	}
	for _, dir := range n.disks.stores {
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
