// Package check finds out whether a machine can do what a node needs, and says
// what to do where it cannot. It is a list of checks; each looks at one thing
// and reports one or more results.
//
// What may not enter: anything that changes the machine, but for what a check
// makes and removes again.
package check

import (
	"context"
	"errors"
	"time"
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

// Check looks at one thing and hands over each result as soon as it is known.
// An error means that it could not look.
type Check func(ctx context.Context, report func(Result)) error

// Summary counts results.
type Summary struct {
	OK   int `json:"ok"`
	Warn int `json:"warn"`
	Fail int `json:"fail"`
	Skip int `json:"skip"`
}

// Run makes the checks one after the other. A check that could not look does
// not keep the others from looking.
func Run(ctx context.Context, checks []Check, report func(Result)) (Summary, error) {
	var s Summary
	var errs []error
	for _, c := range checks {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, c(ctx, func(r Result) {
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
			report(r)
		}))
	}
	return s, errors.Join(append(errs, ctx.Err())...)
}
