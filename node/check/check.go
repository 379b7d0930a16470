// Package check finds out whether a machine can do what a node needs, and says
// what to do where it cannot. It is a list of checks; each looks at one thing
// and reports one or more results.
//
// What may not enter: anything that changes the machine, the server or the
// runtime, but for what a check makes and removes again.
package check

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/v6node/v6node/node/config"
)

// Status of a result.
type Status string

// What a check can find. A skipped result could not be had here, for a reason
// that is no fault.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Result is one line of the report.
type Result struct {
	Group  string `json:"group"`
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail says what was found, in a sentence.
	Detail string `json:"detail,omitempty"`
	// Fix is what to do about it, exactly.
	Fix  string        `json:"fix,omitempty"`
	Took time.Duration `json:"-"`
}

// Check looks at one thing.
type Check struct {
	// Group and Name are those of its results that have none.
	Group, Name string
	// Alone keeps all others from looking meanwhile, and lets Look take its time.
	Alone bool
	// Look hands over each result. An error means that it could not look, which
	// is a failed result too.
	Look func(ctx context.Context, report func(Result)) error
}

// Summary counts results.
type Summary struct {
	OK   int `json:"ok"`
	Warn int `json:"warn"`
	Fail int `json:"fail"`
	Skip int `json:"skip"`
}

func (s *Summary) add(r Result) {
	switch r.Status {
	case OK:
		s.OK++
	case Warn:
		s.Warn++
	case Fail:
		s.Fail++
	case Skip:
		s.Skip++
	}
}

const (
	// patience bounds one check.
	patience = 30 * time.Second
	// grace is for a check to notice that its time is over.
	grace = 2 * time.Second
)

// Run makes the checks, those that bear each other at the same time, and hands
// over their results in the order of the list. The error is ctx's.
func Run(ctx context.Context, checks []Check, report func(Result)) (Summary, error) {
	return run(ctx, checks, patience, report)
}

func run(ctx context.Context, checks []Check, limit time.Duration, report func(Result)) (Summary, error) {
	var s Summary
	show := func(r Result) {
		s.add(r)
		report(r)
	}
	for len(checks) > 0 && ctx.Err() == nil {
		if checks[0].Alone {
			checks[0].look(ctx, show)
			checks = checks[1:]
			continue
		}
		n := 0
		for n < len(checks) && !checks[n].Alone {
			n++
		}
		var begun []*attempt
		for _, c := range checks[:n] {
			begun = append(begun, begin(ctx, c, limit))
		}
		for _, a := range begun {
			a.end(ctx, show)
		}
		checks = checks[n:]
	}
	return s, ctx.Err()
}

// look makes the check, whose results then all have a group and a name.
func (c Check) look(ctx context.Context, report func(Result)) {
	show := func(r Result) {
		if r.Group == "" {
			r.Group = c.Group
		}
		if r.Name == "" {
			r.Name = c.Name
		}
		report(r)
	}
	err := c.Look(ctx, show)
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		show(late)
		return
	}
	what, fix := cutLast(err.Error())
	show(Result{Status: Fail, Detail: what, Fix: fix})
}

// late is what is said of a check that took too long.
var late = Result{Status: Fail, Detail: "there was no answer in time", Fix: "find out what does not answer, such as a network file system or a service that hangs, and try again"}

// attempt is a check under way.
type attempt struct {
	c      Check
	limit  time.Duration
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	over    bool // nothing more is taken
	results []Result
}

// begin starts a check. Its goroutine ends with the check; where the kernel
// does not come back, which nothing can hasten, with the program.
func begin(ctx context.Context, c Check, limit time.Duration) *attempt {
	a := &attempt{c: c, limit: limit, began: time.Now(), done: make(chan struct{})}
	limited, cancel := context.WithTimeout(ctx, limit)
	a.cancel = cancel
	go func() {
		defer close(a.done)
		c.look(limited, func(r Result) {
			a.mu.Lock()
			defer a.mu.Unlock()
			if !a.over {
				a.results = append(a.results, r)
			}
		})
	}()
	return a
}

// end waits for a check within its time, and hands over what it has found.
func (a *attempt) end(ctx context.Context, report func(Result)) {
	defer a.cancel()
	timer := time.NewTimer(max(0, a.limit+grace-time.Since(a.began)))
	defer timer.Stop()
	hangs := false
	select {
	case <-a.done:
	case <-ctx.Done():
	case <-timer.C:
		select {
		case <-a.done: // long ago, while others were waited for
		default:
			hangs = true
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for _, r := range a.results {
		report(r)
	}
	if hangs {
		r := late
		r.Group, r.Name = a.c.Group, a.c.Name
		report(r)
	}
}

// reporter hands over results.
type reporter func(Result)

func (r reporter) ok(name, format string, a ...any) {
	r(Result{Name: name, Status: OK, Detail: fmt.Sprintf(format, a...)})
}

func (r reporter) skip(name, format string, a ...any) {
	r(Result{Name: name, Status: Skip, Detail: fmt.Sprintf(format, a...)})
}

func (r reporter) warn(name, fix, format string, a ...any) {
	r(Result{Name: name, Status: Warn, Detail: fmt.Sprintf(format, a...), Fix: fix})
}

func (r reporter) fail(name, fix, format string, a ...any) {
	r(Result{Name: name, Status: Fail, Detail: fmt.Sprintf(format, a...), Fix: fix})
}

// cutLast parts a sentence at its last semicolon, behind which errors say what
// to do.
func cutLast(s string) (what, fix string) { return config.Advice(s) }

// cutAt parts a sentence where what to do begins.
func cutAt(s, sep string) (what, fix string) {
	if i := strings.LastIndex(s, sep); i > 0 {
		return s[:i], s[i+len(sep):]
	}
	return s, ""
}
