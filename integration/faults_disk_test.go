//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/audit"
)

// A disk on which nothing can be written: what must be said, what may not be
// lost, and that all goes on when it can be written to again. What the node and
// its runtime keep open cannot be remounted read-only by hand; the kernel does it
// when the disk fails, and that is mended without them.

// exhaustion is a way in which a small file system comes to its end.
type exhaustion struct {
	name string
	do   func(t *testing.T, dir string) (undo func())
}

var exhaustions = []exhaustion{{"full", fill}, {"without inodes", fillInodes}}

// fill leaves no block free.
func fill(t *testing.T, dir string) (undo func()) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// fillInodes leaves no inode free.
func fillInodes(t *testing.T, dir string) (undo func()) {
	t.Helper()
	filler := filepath.Join(dir, "filler")
	err := os.Mkdir(filler, 0o700)
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(filler, fmt.Sprint(i)), nil, 0o600)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.RemoveAll(filler); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDisksThatCannotBeWrittenTo(t *testing.T) {
	w := newWorld(t, externalKind)
	var list []scenario
	for _, e := range exhaustions {
		list = append(list,
			scenario{"the state directory is " + e.name, func(t *testing.T, w *world) { stateExhausted(t, w, e) }},
			scenario{"the directory of the runs is " + e.name, func(t *testing.T, w *world) { runsExhausted(t, w, e) }},
		)
	}
	list = append(list,
		scenario{"the directory of the runs is read-only", runsReadOnly},
		scenario{"the state directory's disk fails", stateFails},
	)
	besideAnotherRun(t, w.alpha(t), list)
}

func TestImageStoresThatCannotBeWrittenTo(t *testing.T) {
	var list []scenario
	for _, e := range exhaustions {
		list = append(list, scenario{e.name, func(t *testing.T, w *world) { imagesExhausted(t, w, e) }})
	}
	onRuntime(t, embeddedKind, append(list, scenario{"its disk fails", imagesFail}))
}

// diskFailed checks a run that the disk has ended. Nothing may be left of it.
func (n *node) diskFailed(t *testing.T, done ended, says string) {
	t.Helper()
	if done.Status != standin.StatusStartFailed || done.FinishedAt == nil {
		t.Errorf("it ended as %q: %s", done.Status, done.Text)
	}
	t.Log(done.sentence(t))
	oneSentence(t, done.sentence(t), says, "ask the node's administrator")
	n.onceDelivered(t, done.ID)
}

// wholeRecords checks that a restart finds ledger and audit log undamaged.
func (n *node) wholeRecords(t *testing.T) {
	t.Helper()
	if err := n.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	completed[any](t, n.call(t, "noop", nil))
	if log := n.Log(10_000); strings.Contains(log, "is set aside") || strings.Contains(log, "the audit log is not what this node wrote") {
		t.Error("the node found its records damaged")
	}
	if _, err := audit.Verify(filepath.Join(n.StateDir, audit.DirName), nil); err != nil {
		t.Error(err)
	}
}

// stateExhausted: the files of runs are elsewhere, so that only the node's own
// memory is concerned.
func stateExhausted(t *testing.T, w *world, e exhaustion) {
	state := filepath.Join(w.dir, fmt.Sprintf("state%d", w.number()))
	mount(t, state, 0, "size=2m,nr_inodes=60,mode=0700")
	n := w.start(t, nodeOptions{Extra: map[string]any{"state_dir": state, "task_dir": filepath.Join(w.dir, filepath.Base(state)+"-tasks")}})
	g := n.hold(t)
	undo := e.do(t, state)
	eventually(t, func() error { return n.lacks(t, "disk", state, "no space left on device") })
	if e.name == "full" {
		// What is free within the node's files is used up first.
		var done ended
		for done.Status != standin.StatusStartFailed {
			done = n.call(t, "noop", nil)
		}
		n.diskFailed(t, done, "no space left on device")
		g.release(t)
		eventually(t, func() error {
			if r, _ := w.server.Run(g.run); r.FinishedAt != nil || strings.Contains(n.Log(10_000), "make room in the state directory") {
				return nil
			}
			return errors.New("the end of the algorithm is neither delivered nor said to wait")
		})
	} else {
		// No run needs a file here: they go on.
		completed[any](t, n.call(t, "noop", nil))
		if _, stderr, err := w.v6node(t, "pause", "--state-dir", state); err == nil || !strings.Contains(stderr, "no space left on device") {
			t.Errorf("v6node pause: %v: %s", err, stderr)
		}
		g.release(t)
	}
	undo()
	n.takenOver(t, g, true)
	n.goesOn(t, g.run)
	eventually(t, func() error { return n.lacksNothing(t) })
	n.wholeRecords(t)
}

func (n *node) lacksNothing(t *testing.T) error {
	t.Helper()
	if err := n.lacks(t, "disk"); err == nil {
		return errors.New("the node still lacks a disk")
	}
	return nil
}

func runsExhausted(t *testing.T, w *world, e exhaustion) {
	tasks := filepath.Join(w.dir, fmt.Sprintf("tasks%d", w.number()))
	mount(t, tasks, 0, "size=2m,nr_inodes=80,mode=0700")
	n := w.start(t, nodeOptions{Extra: map[string]any{"task_dir": tasks}})
	g := n.hold(t)
	undo := e.do(t, tasks)
	eventually(t, func() error { return n.lacks(t, "disk", tasks, "no space left on device") })
	n.diskFailed(t, n.call(t, "noop", nil), "no space left on device")
	if e.name == "full" {
		// What it writes now is lost, and it is told that this may be why.
		g.release(t)
		done := n.finish(t, g.task)
		if done.Status != standin.StatusCrashed {
			t.Errorf("it ended as %q: %s", done.Status, done.Text)
		}
		t.Log(done.sentence(t))
		oneSentence(t, done.sentence(t), "cannot be written to", "no space left on device", "ask the node's administrator")
		n.onceDelivered(t, g.run)
		n.gone(t, g.run)
		undo()
	} else {
		undo()
		g.release(t)
		n.takenOver(t, g, true)
	}
	n.goesOn(t, g.run)
	eventually(t, func() error { return n.lacksNothing(t) })
}

func runsReadOnly(t *testing.T, w *world) {
	tasks := filepath.Join(w.dir, fmt.Sprintf("tasks%d", w.number()))
	mount(t, tasks, 0, "size=2m,mode=0700")
	n := w.start(t, nodeOptions{Extra: map[string]any{"task_dir": tasks}})
	first := n.call(t, "noop", nil)
	completed[any](t, first)
	n.gone(t, first.ID)
	eventually(t, func() error { return unix.Mount("", tasks, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") }) // until the log is closed
	eventually(t, func() error { return n.lacks(t, "disk", tasks, "read-only file system") })
	done := n.call(t, "noop", nil)
	n.diskFailed(t, done, "read-only file system")
	if err := unix.Mount("", tasks, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	n.goesOn(t, done.ID)
	eventually(t, func() error { return n.lacksNothing(t) })
}

// disk is an ext4 on a file, mounted at a directory.
type disk struct{ file, dir string }

func (w *world) disk(t *testing.T, dir string) *disk {
	t.Helper()
	d := &disk{file: filepath.Join(w.dir, fmt.Sprintf("disk%d", w.number())), dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(d.file, nil, 0o600), os.Truncate(d.file, 256<<20)); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", d.file)
	d.mount(t)
	t.Cleanup(func() { d.unmount(t) })
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(within(t), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

func (d *disk) mount(t *testing.T) {
	t.Helper()
	tool(t, "mount", "-o", "loop,errors=remount-ro", d.file, d.dir)
}

func (d *disk) unmount(t *testing.T) {
	t.Helper()
	if err := unix.Unmount(d.dir, 0); err != nil {
		t.Errorf("unmount %s: %v", d.dir, err)
	}
}

// fails makes the kernel find the file system damaged: it lets nobody write to it
// any more.
func (d *disk) fails(t *testing.T) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(d.dir, &st); err != nil {
		t.Fatal(err)
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// aged makes it a disk on which everything was written long ago. Without it only
// what was synced is there after a failure.
func (d *disk) aged(t *testing.T) {
	t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// mended is the administrator's part, with nobody using the disk.
func (d *disk) mended(t *testing.T) {
	t.Helper()
	d.unmount(t)
	// 1: errors were corrected.
	if out, err := exec.CommandContext(within(t), "e2fsck", "-fy", d.file).CombinedOutput(); err != nil && exitCode(err) != 1 {
		t.Fatalf("e2fsck: %v: %s", err, out)
	}
	d.mount(t)
}

func exitCode(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return -1
}

// stateFails: what the node cannot write down it does not tell the server, and
// does so when it is started on the mended disk.
func stateFails(t *testing.T, w *world) {
	state := filepath.Join(w.dir, fmt.Sprintf("state%d", w.number()))
	d := w.disk(t, state)
	n := w.start(t, nodeOptions{Extra: map[string]any{"state_dir": state, "task_dir": filepath.Join(w.dir, filepath.Base(state)+"-tasks")}})
	g := n.hold(t)
	d.fails(t)
	eventually(t, func() error { return n.lacks(t, "disk", state, "read-only file system") })
	done := n.call(t, "noop", nil)
	n.diskFailed(t, done, "read-only file system")
	g.release(t)
	eventually(t, func() error {
		if !strings.Contains(n.Log(10_000), "the outcome of a run could not be written down") {
			return errors.New("the node does not say that the outcome waits")
		}
		return nil
	})
	if r, _ := w.server.Run(g.run); r.FinishedAt != nil {
		t.Error("the server has an outcome that the node could not write down")
	}
	n.Kill()
	d.mended(t)
	n.restart(t)
	n.takenOver(t, g, true)
	n.goesOn(t, g.run)
	n.wholeRecords(t)
}

func imagesExhausted(t *testing.T, w *world, e exhaustion) {
	state := filepath.Join(w.dir, fmt.Sprintf("images%d", w.number()))
	store := filepath.Join(state, "containerd")
	mount(t, store, 0, "size=96m,nr_inodes=600,mode=0700")
	n := w.start(t, nodeOptions{Extra: map[string]any{"state_dir": state}})
	g := n.hold(t)
	undo := e.do(t, store)
	eventually(t, func() error { return n.lacks(t, "disk", store, "no space left on device") })
	ref := w.packOwn(t)
	done := n.call(t, "noop", nil, image(ref.Tag))
	n.diskFailed(t, done, "no space left on device")
	g.release(t)
	if got := completed[gated](t, n.finish(t, g.task)); got.Executed != 1 || got.Proxy != 200 {
		t.Errorf("the algorithm that ran meanwhile was disturbed: %+v", got)
	}
	undo()
	n.goesOn(t, g.run)
	n.goesOn(t, done.ID)
	completed[any](t, n.call(t, "noop", nil, image(ref.Tag)))
	eventually(t, func() error { return n.lacksNothing(t) })
}

// packOwn packs an image that no other scenario has.
func (w *world) packOwn(t *testing.T) imagekit.Ref {
	t.Helper()
	number := w.number()
	return w.pack(t, w.lab.Registry, fmt.Sprintf("disk-%d/algorithm", number), fmt.Sprintf("disk %d", number))
}

func imagesFail(t *testing.T, w *world) {
	state := filepath.Join(w.dir, fmt.Sprintf("images%d", w.number()))
	store := filepath.Join(state, "containerd")
	d := w.disk(t, store)
	n := w.start(t, nodeOptions{Extra: map[string]any{"state_dir": state}})
	completed[any](t, n.call(t, "noop", nil))
	d.aged(t) // containerd does not sync what it unpacks
	d.fails(t)
	eventually(t, func() error { return n.lacks(t, "disk", store, "read-only file system") })
	done := n.call(t, "noop", nil)
	n.diskFailed(t, done, "read-only file system")
	pid := n.runtimePID(t)
	n.Kill()
	if err := killAndWait(pid); err != nil {
		t.Fatal(err)
	}
	d.mended(t)
	n.restart(t)
	n.goesOn(t, done.ID)
}
