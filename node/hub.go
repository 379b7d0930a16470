package node

import "sync"

// taskHub tells the proxies of running algorithms that a task changed, so that
// a held request for its status is answered at once.
type taskHub struct {
	mu   sync.Mutex
	subs map[int64]map[chan struct{}]struct{}
}

func newTaskHub() *taskHub { return &taskHub{subs: make(map[int64]map[chan struct{}]struct{})} }

// Subscribe implements proxy.TaskEvents.
func (h *taskHub) Subscribe(taskID int64) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[taskID] == nil {
		h.subs[taskID] = make(map[chan struct{}]struct{})
	}
	h.subs[taskID][ch] = struct{}{}
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs[taskID], ch)
		if len(h.subs[taskID]) == 0 {
			delete(h.subs, taskID)
		}
	}
}

// changed wakes the subscribers of one task.
func (h *taskHub) changed(taskID int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wake(h.subs[taskID])
}

// all wakes every subscriber: after a reconnect events may have been missed.
func (h *taskHub) all() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.subs {
		wake(s)
	}
}

func wake(subs map[chan struct{}]struct{}) {
	for ch := range subs {
		select {
		case ch <- struct{}{}:
		default: // it is about to ask already
		}
	}
}
