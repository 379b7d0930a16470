package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	// The test binary is also the plugin, so that coverage and the race
	// detector see it run as a runtime runs it.
	if os.Getenv("CNI_COMMAND") != "" {
		PluginMain()
		return
	}
	// Under the race detector a process sleeps for a second at its end, and the
	// tests execute the plugin some sixty times.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root, or a user namespace")
	}
}

// newNetns makes a network namespace that the test owns and returns the path
// where it is mounted.
func newNetns(t testing.TB) string {
	t.Helper()
	needRoot(t)
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	home, err := os.Open(selfNetns)
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	err = unix.Mount(selfNetns, path, "", unix.MS_BIND, "")
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // this thread must not run anything else
	}
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
	return path
}

func open(t testing.TB, path string) *Netns {
	t.Helper()
	n, err := OpenNetns(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// newSandbox returns a namespace in which the plugin's work has been done.
func newSandbox(t testing.TB) *Netns {
	t.Helper()
	n := open(t, newNetns(t))
	if _, err := n.setUp(ifName); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOpenNetnsTakesOnlyAPathToANetworkNamespace(t *testing.T) {
	path := newNetns(t)
	dir := t.TempDir()
	join := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(join("plain"), nil, 0o600))
	must(os.Symlink(path, join("link")))
	must(os.Symlink("/proc/self/ns/net", join("proclink")))
	must(unix.Mkfifo(join("fifo"), 0o600))
	must(os.WriteFile(join("uts"), nil, 0o600))
	must(unix.Mount("/proc/self/ns/uts", join("uts"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(join("uts"), unix.MNT_DETACH) })

	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"a missing file", join("none"), os.ErrNotExist},
		{"no path", "", os.ErrNotExist},
		{"a plain file", join("plain"), ErrNotNetns},
		{"a directory", dir, ErrNotNetns},
		{"a FIFO", join("fifo"), ErrNotNetns},
		{"a device", "/dev/null", ErrNotNetns},
		{"a symbolic link to a namespace", join("link"), ErrNotNetns},
		{"a symbolic link to the own one", join("proclink"), ErrNotNetns},
		{"a namespace of another type", join("uts"), ErrNotNetns},
		{"the own namespace", "/proc/self/ns/net", ErrForeignNetwork},
	} {
		if n, err := OpenNetns(c.path); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v; want %v", c.name, n, err, c.want)
		}
	}
}

func TestOpenNetnsTakesTheNamespaceOfAProcess(t *testing.T) {
	n := open(t, newNetns(t))
	if err := n.Do(func() error {
		// From another thread, which is outside.
		path := fmt.Sprintf("/proc/%d/ns/net", unix.Gettid())
		errc := make(chan error)
		go func() {
			other, err := OpenNetns(path)
			if err == nil {
				err = other.Close()
			}
			errc <- err
		}()
		return <-errc
	}); err != nil {
		t.Fatal(err)
	}
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	n := open(t, newNetns(t))
	id := func() string {
		link, err := os.Readlink(selfNetns)
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	outside := id()
	var inside string
	if err := n.Do(func() error { inside = id(); return nil }); err != nil {
		t.Fatal(err)
	}
	if inside == outside {
		t.Error("Do ran outside of the namespace")
	}
	sentinel := errors.New("sentinel")
	if err := n.Do(func() error { return sentinel }); err != sentinel {
		t.Errorf("Do returned %v, not the function's error", err)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err != errGoexit {
		t.Errorf("Do of a function that ended its goroutine returned %v", err)
	}
	waitNoThreadIn(t, inside)
}

func TestDoNeverRunsOnTheFirstThread(t *testing.T) {
	n := open(t, newNetns(t))
	for range 200 {
		if err := n.Do(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("it did")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAThreadThatCannotComeBackIsThrownAway(t *testing.T) {
	n := open(t, newNetns(t))
	var inside string
	if err := n.Do(func() error {
		inside, _ = os.Readlink(selfNetns)
		// Without capabilities, which belong to the thread, it cannot return.
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		return unix.Capset(&hdr, &none[0])
	}); err != nil {
		t.Fatal(err)
	}
	waitNoThreadIn(t, inside)
	// What is left can still do its work.
	if err := n.Do(func() error { return nil }); err != nil {
		t.Errorf("after the loss of a thread: %v", err)
	}
}

// waitNoThreadIn waits until no thread of this process is in the namespace; the
// kernel ends threads in its own time.
func waitNoThreadIn(t *testing.T, ns string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		links, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil || len(links) == 0 {
			t.Fatalf("no threads found: %v", err)
		}
		left := 0
		for _, l := range links {
			if id, err := os.Readlink(l); err == nil && id == ns {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d threads are still in the namespace", left)
		}
		runtime.Gosched()
	}
}

func TestAClosedNetnsSaysSo(t *testing.T) {
	n := open(t, newNetns(t))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Do: %v", err)
	}
	if err := n.Verify(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Verify: %v", err)
	}
	if _, err := n.Listen("127.0.0.1:0"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Listen: %v", err)
	}
}

// countFDs counts this process's descriptors, without the one that counts.
func countFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) - 1
}

func TestNothingLeaks(t *testing.T) {
	path := newSandbox(t).Path()
	round := func() {
		n, err := OpenNetns(path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.Verify(); err != nil {
			t.Fatal(err)
		}
		l, err := n.Listen("127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := n.Listen("127.0.0.1:8080"); err == nil {
			t.Fatal("a second listener got the same port")
		}
	}
	round() // what Go opens once (its poller) is not a leak
	fds, goroutines := countFDs(t), runtime.NumGoroutine()
	for range 100 {
		round()
	}
	if got := countFDs(t); got > fds {
		t.Errorf("%d descriptors became %d", fds, got)
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > goroutines {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines became %d:\n%s", goroutines, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

func BenchmarkOpenNetns(b *testing.B) {
	path := newSandbox(b).Path()
	for b.Loop() {
		n, err := OpenNetns(path)
		if err != nil {
			b.Fatal(err)
		}
		n.Close()
	}
}

// oneSentence checks what every error for a reader must be.
func oneSentence(t *testing.T, err error, words ...string) {
	t.Helper()
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines: %q", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %q", w, err)
		}
	}
}
