package runtime

import (
	"context"
	"errors"
	"os/exec"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// watch runs a watcher until the end of the test.
func watch(t testing.TB, c *Client, o WatchOptions) (w *Watcher, stop func()) {
	t.Helper()
	w = NewWatcher(c, map[string]string{"ai.vantage6.run": "7"}, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return w, stop
}

// listening starts a container at a fake runtime, and a watcher that hears its
// events.
func listening(t *testing.T, o WatchOptions) (f *fakeCRI, w *Watcher, id string) {
	t.Helper()
	f = newFake(t)
	f.start(t)
	c := dialFake(t, f)
	_, id = startOne(t, c, testSandbox())
	w, _ = watch(t, c, o)
	f.until(t, "a listener", func() bool { return len(f.listeners) == 1 })
	return f, w, id
}

type waited struct {
	c   *Container
	err error
}

func wait(ctx context.Context, w *Watcher, id string) <-chan waited {
	out := make(chan waited, 1)
	go func() {
		c, err := w.Wait(ctx, id)
		out <- waited{c, err}
	}()
	return out
}

// neverRelist leaves the work to the events.
var neverRelist = WatchOptions{RelistMin: time.Hour, RelistMax: time.Hour}

func TestWaitReturnsAtTheEventOfTheEnd(t *testing.T) {
	f, w, id := listening(t, neverRelist)
	out := wait(t.Context(), w, id)
	f.await(t, "ContainerStatus", 1)
	f.end(id, 5)
	if r := <-out; r.err != nil || r.c.State != StateExited || r.c.ExitCode != 5 {
		t.Fatalf("got %+v, %v", r.c, r.err)
	}
}

func TestWaitReturnsByListingWhereTheRuntimeSendsNoEvents(t *testing.T) {
	f := newFake(t)
	f.noEvents = true
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	w, _ := watch(t, c, WatchOptions{RelistMin: time.Millisecond})
	out := wait(t.Context(), w, id)
	f.await(t, "ListContainers", 2)
	f.end(id, 0)
	if r := <-out; r.err != nil || r.c.State != StateExited {
		t.Fatalf("got %+v, %v", r.c, r.err)
	}
}

func TestWaitOfAnEndedContainerReturnsAtOnce(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	f.end(id, 1)
	w, _ := watch(t, c, neverRelist)
	if r := <-wait(t.Context(), w, id); r.err != nil || r.c.ExitCode != 1 {
		t.Fatalf("got %+v, %v", r.c, r.err)
	}
}

func TestWaitTellsThatTheContainerOrItsSandboxVanished(t *testing.T) {
	f := newFake(t)
	f.noEvents = true
	f.start(t)
	c := dialFake(t, f)
	w, _ := watch(t, c, WatchOptions{RelistMin: time.Millisecond})
	if r := <-wait(t.Context(), w, "never"); !errors.Is(r.err, ErrNotFound) {
		t.Fatalf("got %v", r.err)
	}
	sandbox, id := startOne(t, c, testSandbox())
	out := wait(t.Context(), w, id)
	f.await(t, "ContainerStatus", 2)
	if err := c.RemoveSandbox(t.Context(), sandbox); err != nil {
		t.Fatal(err)
	}
	if r := <-out; !errors.Is(r.err, ErrNotFound) {
		t.Fatalf("got %v", r.err)
	}
}

func TestWaitSurvivesARestartOfTheRuntime(t *testing.T) {
	f, w, id := listening(t, WatchOptions{RelistMin: 10 * time.Millisecond})
	out := wait(t.Context(), w, id)
	f.await(t, "ContainerStatus", 1)
	f.stop()
	f.until(t, "no listener", func() bool { return len(f.listeners) == 0 })
	f.end(id, 9) // while nobody can tell
	f.start(t)
	if r := <-out; r.err != nil || r.c.ExitCode != 9 {
		t.Fatalf("got %+v, %v", r.c, r.err)
	}
}

func TestManyWaitForOneContainer(t *testing.T) {
	f, w, id := listening(t, neverRelist)
	var outs []<-chan waited
	for range 10 {
		outs = append(outs, wait(t.Context(), w, id))
	}
	f.await(t, "ContainerStatus", 10)
	f.end(id, 3)
	for _, out := range outs {
		if r := <-out; r.err != nil || r.c.ExitCode != 3 {
			t.Fatalf("got %+v, %v", r.c, r.err)
		}
	}
	if len(w.waiters) != 0 {
		t.Errorf("%d waiters are left", len(w.waiters))
	}
}

func TestWaitEndsWithItsContextAndWithTheWatcher(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	w, stop := watch(t, c, neverRelist)
	ctx, cancel := context.WithCancel(t.Context())
	out := wait(ctx, w, id)
	f.await(t, "ContainerStatus", 1)
	cancel()
	if r := <-out; !errors.Is(r.err, context.Canceled) {
		t.Fatalf("got %v", r.err)
	}
	out = wait(t.Context(), w, id)
	f.await(t, "ContainerStatus", 2)
	stop()
	if r := <-out; !errors.Is(r.err, ErrClosed) {
		t.Fatalf("got %v", r.err)
	}
	if r := <-wait(t.Context(), w, id); !errors.Is(r.err, ErrClosed) {
		t.Fatalf("got %v", r.err)
	}
}

func TestALostContainerEndsTheWait(t *testing.T) {
	f := newFake(t)
	f.noEvents = true
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	w, _ := watch(t, c, WatchOptions{RelistMin: time.Millisecond})
	out := wait(t.Context(), w, id)
	f.await(t, "ListContainers", 1)
	f.mu.Lock()
	f.containers[id].state = cri.ContainerState_CONTAINER_UNKNOWN
	f.mu.Unlock()
	if r := <-out; r.err != nil || r.c.State != StateUnknown {
		t.Fatalf("got %+v, %v", r.c, r.err)
	}
}

func TestAContainerWhoseProcessHasEndedUnnoticedEndsTheWait(t *testing.T) {
	process := exec.Command("sleep", "infinity")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	_, id := startOne(t, c, testSandbox())
	f.mu.Lock()
	f.containers[id].pid = process.Process.Pid
	f.mu.Unlock()
	o := neverRelist
	o.Look = time.Millisecond
	w, _ := watch(t, c, o)
	out := wait(t.Context(), w, id)
	f.await(t, "ContainerStatus", 2) // at the beginning, and for the process
	select {
	case r := <-out:
		t.Fatalf("while the process lives: %+v, %v", r.c, r.err)
	default:
	}
	_ = process.Process.Kill()
	_ = process.Wait() // it was killed
	if r := <-out; r.err != nil || r.c.State != StateUnknown || r.c.ExitCode != 255 {
		t.Fatalf("got %+v, %v", r.c, r.err)
	}
}

// relisting counts the listings of a watcher without a runtime.
func relisting(t *testing.T, ctx context.Context) (w *Watcher, live chan bool, listed *atomic.Int64) {
	t.Helper()
	listed = new(atomic.Int64)
	live = make(chan bool)
	w = NewWatcher(&Client{}, nil, WatchOptions{})
	w.list = func(context.Context) ([]*Container, error) {
		listed.Add(1)
		return []*Container{{ID: "x", State: StateRunning}}, nil
	}
	go w.relist(ctx, live)
	return w, live, listed
}

func TestNothingIsListedWhileNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, listed := relisting(t, t.Context())
		time.Sleep(time.Hour) // of the bubble's clock
		synctest.Wait()
		if listed.Load() > 1 {
			t.Errorf("%d listings", listed.Load())
		}
	})
}

func TestListingSlowsDownOnlyWhileEventsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, live, listed := relisting(t, t.Context())
		w.waiters["x"] = map[*waiter]struct{}{}
		signal(w.rescan)
		time.Sleep(60*time.Second + time.Millisecond)
		synctest.Wait()
		if listed.Load() < 59 || listed.Load() > 61 {
			t.Errorf("without events %d listings in a minute, want one a second", listed.Load())
		}
		live <- true
		listed.Store(0)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if listed.Load() < 55 || listed.Load() > 65 {
			t.Errorf("with events %d listings in ten minutes, want one in ten seconds", listed.Load())
		}
		live <- false
		listed.Store(0)
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if listed.Load() < 9 {
			t.Errorf("after the events ended %d listings in ten seconds", listed.Load())
		}
	})
}
