package runtime

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// WatchOptions of a Watcher. The zero value is good.
type WatchOptions struct {
	// While somebody waits, the containers are listed every RelistMin when the
	// runtime sends no events (default 1 s), and ever more rarely up to
	// RelistMax (default 10 s) as long as it does.
	RelistMin, RelistMax time.Duration
	// While a container is waited for, its process is looked at every Look
	// (default 5 s): a runtime that has lost a container may say for ever that
	// it runs.
	Look time.Duration
	// Busy, if set, is told when the listing begins and when it has ended, so
	// that one that never ends can be seen. It must return at once.
	Busy func(bool)
}

// Watcher tells when containers end. The runtime's events wake it early; its
// listing is the truth, because events get lost: CRI-O sends none unless told
// to, containerd 1.7 and older split them between all who listen, and whoever
// reconnects has missed some. It asks nothing while nobody waits.
type Watcher struct {
	c    *Client
	list func(context.Context) ([]*Container, error)
	o    WatchOptions

	mu      sync.Mutex
	waiters map[string]map[*waiter]struct{} // by container ID
	ended   bool
	exits   exits

	// rescan has a value when the listing is due at once.
	rescan chan struct{}
}

type waiter struct {
	wake chan struct{} // has a value when the container may have ended
	end  chan struct{} // closed when Run has ended
}

// NewWatcher makes a watcher of the containers that have all the labels. Its
// owner calls Run.
func NewWatcher(c *Client, labels map[string]string, o WatchOptions) *Watcher {
	if o.RelistMin <= 0 {
		o.RelistMin = time.Second
	}
	if o.RelistMax <= 0 {
		o.RelistMax = 10 * time.Second
	}
	o.RelistMax = max(o.RelistMin, o.RelistMax)
	if o.Look <= 0 {
		o.Look = 5 * time.Second
	}
	if o.Busy == nil {
		o.Busy = func(bool) {}
	}
	labels = maps.Clone(labels)
	return &Watcher{
		c:       c,
		list:    func(ctx context.Context) ([]*Container, error) { return c.ListContainers(ctx, labels) },
		o:       o,
		waiters: map[string]map[*waiter]struct{}{},
		rescan:  make(chan struct{}, 1),
	}
}

// Run keeps watching until ctx ends and returns nil then. It is called once.
// When it has returned, calls of Wait fail with ErrClosed.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	live := make(chan bool)
	wg.Go(func() { w.listen(ctx, live) })
	wg.Go(func() { w.hear(ctx) })
	w.relist(ctx, live)
	wg.Wait()

	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for _, of := range w.waiters {
		for x := range of {
			close(x.end)
		}
	}
	return nil
}

// Wait returns the container when it has ended: State is StateExited, or
// StateUnknown when the runtime has lost it, whose exit code is 255 where nobody
// knows it. Of one that ended while containerd was away its shim is asked. It fails with ErrNotFound when the
// container does not exist (any more), with ErrClosed when Run has ended, and
// with ctx's error. A runtime that is away, however long, is waited for. Run
// need not have begun, but must sooner or later.
func (w *Watcher) Wait(ctx context.Context, containerID string) (*Container, error) {
	op := "wait for the container " + short(containerID)
	closed := &Error{Op: op, Kind: ErrClosed, text: "the node is stopping"}
	x := &waiter{wake: make(chan struct{}, 1), end: make(chan struct{})}
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return nil, closed
	}
	if w.waiters[containerID] == nil {
		w.waiters[containerID] = map[*waiter]struct{}{}
	}
	w.waiters[containerID][x] = struct{}{}
	first := len(w.waiters) == 1
	w.mu.Unlock()
	if first {
		signal(w.rescan)
	}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waiters[containerID], x)
		if len(w.waiters[containerID]) == 0 {
			delete(w.waiters, containerID)
			w.exits.forget(containerID)
		}
	}()

	look := time.NewTicker(w.o.Look)
	defer look.Stop()
	process := &lookout{}
	defer process.close()
	lost := false
	unknown := time.NewTimer(lostWait) // runs from when the runtime says so
	unknown.Stop()
	defer unknown.Stop()
	asked, given := false, false // it is waited for; that has taken long enough
	// The waiter is registered before the state is read, so no end is missed.
	for {
		st, err := w.c.containerStatus(ctx, containerID, false)
		switch {
		case err == nil && lost && st.State == StateRunning && w.endedAs(st):
			return st, nil
		case err == nil && lost && st.State == StateRunning:
			w.c.log.Warn("the runtime says of a container that it runs, but its process has ended", "container", short(containerID))
			st.State, st.Reason = StateUnknown, "its process has ended and the runtime has not noticed"
			fallthrough
		case err == nil && st.State == StateUnknown:
			if st.ExitCode == 0 {
				st.ExitCode = lostExit
			}
			return st, nil
		case err == nil && st.State == StateExited && st.Reason == ReasonUnknown && !given:
			if w.endedAs(st) {
				return st, nil
			}
			if !asked {
				asked = true
				unknown.Reset(lostWait)
			}
		case err == nil && st.State == StateExited:
			return st, nil
		case errors.Is(err, ErrNotFound):
			return nil, err
		case ctx.Err() != nil:
			return nil, &Error{Op: op, Cause: ctx.Err()}
		case err != nil:
			w.c.log.Warn("the state of a container could not be read, trying again", "container", short(containerID), "error", err)
		}
		for again := false; !again; {
			select {
			case <-x.wake:
				again = true
			case <-look.C:
				lost = process.lost(func() int { return w.processOf(ctx, containerID) })
				again = lost
			case <-unknown.C:
				again, given = true, true
			case <-x.end:
				return nil, closed
			case <-ctx.Done():
				return nil, &Error{Op: op, Cause: ctx.Err()}
			}
		}
	}
}

// endedAs completes what the runtime says of a container that has ended, if its
// shim has told how.
func (w *Watcher) endedAs(c *Container) bool {
	code, known := w.exits.code(c.ID)
	if known {
		w.c.log.Warn("the runtime does not know how a container ended, and its monitor does", "container", short(c.ID), "exit_code", code)
		c.State, c.ExitCode, c.Reason = StateExited, code, ""
	}
	return known
}

// processOf is the number of a running container's process, or 0 where that is
// not known here.
func (w *Watcher) processOf(ctx context.Context, containerID string) int {
	st, err := w.c.containerStatus(ctx, containerID, true)
	if err != nil || st.State != StateRunning {
		return 0
	}
	if same, err := samePIDs(ctx, w.c.path); err != nil || !same {
		return 0
	}
	return st.PID
}

// listen reads the runtime's events, for ever. It tells on live when the stream
// has opened and when it has broken.
func (w *Watcher) listen(ctx context.Context, live chan<- bool) {
	tell := func(up bool) {
		select {
		case live <- up:
		case <-ctx.Done():
		}
	}
	delay := w.o.RelistMin
	for ctx.Err() == nil {
		got := false
		stream, err := w.c.rt.GetContainerEvents(ctx, &cri.GetEventsRequest{}, grpc.WaitForReady(true))
		if err == nil {
			tell(true)
			var ev *cri.ContainerEventResponse
			// containerd hands each event to all listeners in turn: never
			// let it wait here.
			for {
				if ev, err = stream.Recv(); err != nil {
					break
				}
				got = true
				w.handle(ev)
			}
			tell(false)
		}
		if ctx.Err() != nil {
			return
		}
		w.c.log.Debug("the runtime's event stream ended", "error", err)
		if got {
			delay = w.o.RelistMin
		}
		if !pause(ctx, delay) {
			return
		}
		delay = min(2*delay, w.o.RelistMax)
	}
}

func (w *Watcher) handle(ev *cri.ContainerEventResponse) {
	switch ev.GetContainerEventType() {
	case cri.ContainerEventType_CONTAINER_STOPPED_EVENT, cri.ContainerEventType_CONTAINER_DELETED_EVENT:
		w.wake(ev.GetContainerId())
	}
}

func (w *Watcher) wake(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.waiters[id] {
		signal(x.wake)
	}
}

// relist lists the containers while somebody waits.
func (w *Watcher) relist(ctx context.Context, live <-chan bool) {
	every := w.o.RelistMin
	events := false
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case events = <-live:
			// Something may have happened while nobody listened.
			every = w.o.RelistMin
		case <-w.rescan:
			every = w.o.RelistMin
		case <-timer.C:
			ok := w.scan(ctx)
			if ok && !events {
				every = w.o.RelistMin
			} else {
				every = min(2*every, w.o.RelistMax)
			}
		}
		// With nobody waiting the timer stays off until rescan.
		if w.idle() {
			timer.Stop()
		} else {
			timer.Reset(every)
		}
	}
}

func (w *Watcher) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiters) == 0
}

// scan wakes those whose container is not listed as running or about to.
func (w *Watcher) scan(ctx context.Context) bool {
	w.o.Busy(true)
	defer w.o.Busy(false)
	list, err := w.list(ctx)
	if err != nil {
		w.c.log.Debug("the containers could not be listed, trying again", "error", err)
		return false
	}
	alive := make(map[string]bool, len(list))
	for _, k := range list {
		alive[k.ID] = k.State == StateRunning || k.State == StateCreated
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, of := range w.waiters {
		if alive[id] {
			continue
		}
		for x := range of {
			signal(x.wake)
		}
	}
	return true
}

// signal leaves a value in a channel of one place, if there is none.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits for d and says whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
