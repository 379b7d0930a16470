package admission

// Turns say whose turn it is: how much of the budget the organizations have
// been given, in a clock that only has a meaning in comparison. A caller keeps
// them with the queue, so that a restart changes no one's place.
type Turns struct {
	Clock         float64           `json:"clock"`
	Organizations map[int64]float64 `json:"organizations"`
}

// Turns returns the state of the turns at this moment.
func (c *Controller) Turns() Turns {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := Turns{Clock: c.queue.clock, Organizations: make(map[int64]float64, len(c.queue.by))}
	for id, acc := range c.queue.by {
		if len(acc.runs) > 0 || acc.clock > t.Clock { // others begin at the clock
			t.Organizations[id] = acc.clock
		}
	}
	return t
}

// SetTurns goes on with the turns of an earlier controller. It is called before
// anything is queued or restored.
func (c *Controller) SetTurns(t Turns) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.clock = t.Clock
	for id, clock := range t.Organizations {
		c.queue.by[id] = &account{clock: clock, resumed: true}
	}
}

// Hold lets nothing start until release is called, which may be called more
// than once. Runs that arrive together are enqueued under it: else the first to
// be enqueued would start, and not the one whose turn it is.
func (c *Controller) Hold() (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds++
	released := false
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if released {
			return
		}
		released = true
		if c.holds--; c.holds == 0 && !c.closed {
			c.dispatch()
		}
	}
}
