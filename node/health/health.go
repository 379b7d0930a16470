// Package health tells whether a node's loops make progress and whether the
// node can take runs. It knows nothing of what the loops and conditions are
// about; whoever owns them names them here.
//
// The two answers differ on purpose. A loop that is stuck is cured by a
// restart, and nothing else is: a server or runtime that is away must never
// make a node unhealthy, only unready.
package health

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Monitor collects a node's loops and conditions. It is safe for concurrent
// use.
type Monitor struct {
	now   func() time.Time
	mu    sync.Mutex
	loops []*Loop
	conds []condition
}

type condition struct {
	name  string
	check func(context.Context) error
}

// New makes a monitor that knows nothing yet. now is the clock; nil is the
// machine's.
func New(now func() time.Time) *Monitor {
	if now == nil {
		now = time.Now
	}
	return &Monitor{now: now}
}

// Loop is the sign of life of one goroutine that must not stand still. A nil
// Loop is good and watches nothing.
type Loop struct {
	name      string
	allowance time.Duration
	now       func() time.Time
	// since is when the loop last showed progress, in nanoseconds; 0 while it
	// waits for work.
	since atomic.Int64
}

// Loop makes known a loop that shows progress at least every allowance while
// it works. It counts from its first Beat on.
func (m *Monitor) Loop(name string, allowance time.Duration) *Loop {
	l := &Loop{name: name, allowance: allowance, now: m.now}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loops = append(m.loops, l)
	return l
}

// Beat says that the loop works and has made progress.
func (l *Loop) Beat() {
	if l != nil {
		l.since.Store(l.now().UnixNano())
	}
}

// Rest says that the loop waits for work, which may take for ever.
func (l *Loop) Rest() {
	if l != nil {
		l.since.Store(0)
	}
}

// Require adds a condition for taking runs. check returns what is lacking, in
// one sentence for an administrator, or nil. It must return soon after its
// context ends.
func (m *Monitor) Require(name string, check func(context.Context) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conds = append(m.conds, condition{name, check})
}

// Item is the state of one loop or condition.
type Item struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"` // what is wrong
}

// Report is the state of all loops, or of all conditions.
type Report struct {
	OK    bool   `json:"ok"`
	Items []Item `json:"items"`
}

func report(items []Item) Report {
	return Report{OK: !slices.ContainsFunc(items, func(i Item) bool { return !i.OK }), Items: items}
}

// Without is the report as if it had no item of the name.
func (r Report) Without(name string) Report {
	return report(slices.DeleteFunc(slices.Clone(r.Items), func(i Item) bool { return i.Name == name }))
}

// String names what is wrong, or is empty.
func (r Report) String() string {
	var wrong []string
	for _, i := range r.Items {
		if !i.OK {
			wrong = append(wrong, i.Name+": "+i.Message)
		}
	}
	return strings.Join(wrong, "; ")
}

// Alive tells which loops make progress. It never waits.
func (m *Monitor) Alive() Report {
	m.mu.Lock()
	loops := slices.Clone(m.loops)
	m.mu.Unlock()
	now := m.now()
	items := make([]Item, 0, len(loops))
	for _, l := range loops {
		i := Item{Name: l.name, OK: true}
		if since := l.since.Load(); since != 0 {
			if still := now.Sub(time.Unix(0, since)); still > l.allowance {
				i.OK, i.Message = false, "stuck: no progress for "+still.Round(time.Second).String()
			}
		}
		items = append(items, i)
	}
	return report(items)
}

// checkTime bounds the check of one condition.
const checkTime = 3 * time.Second

// Ready tells which conditions for taking runs are met. All are checked at the
// same time.
func (m *Monitor) Ready(ctx context.Context) Report {
	m.mu.Lock()
	conds := slices.Clone(m.conds)
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	items := make([]Item, len(conds))
	var all sync.WaitGroup
	for i, c := range conds {
		all.Go(func() {
			items[i] = Item{Name: c.name, OK: true}
			if err := c.check(ctx); err != nil {
				items[i].OK, items[i].Message = false, err.Error()
			}
		})
	}
	all.Wait()
	return report(items)
}

// Cached is a check that asks at most once in a while, whoever asks, so that
// frequent questions cost nothing and a silent answerer holds nobody up twice.
// An answer that is cut off by the asker's own end is not kept.
func Cached(check func(context.Context) error, keep time.Duration) func(context.Context) error {
	c := &cached{turn: make(chan struct{}, 1), check: check, keep: keep}
	return c.ask
}

type cached struct {
	turn  chan struct{} // holds a value while somebody asks
	check func(context.Context) error
	keep  time.Duration
	until time.Time
	last  error
}

func (c *cached) ask(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return errors.New("no answer yet")
	}
	defer func() { <-c.turn }()
	if time.Now().Before(c.until) {
		return c.last
	}
	err := c.check(ctx)
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	c.last, c.until = err, time.Now().Add(c.keep)
	return err
}
