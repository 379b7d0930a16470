package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// verdict decides from what the machine says whether the tests passed in it. It
// believes in nothing that was not said: an early end is a failure.
type verdict struct {
	plan    []suite
	ready   *ready
	current int // index of the suite that runs, or len(plan)
	begun   bool
	passed  map[string]bool // tests and parts of tests of the current suite
	skipped []string
	results []result
	problem string // of the guest
	done    bool
}

type result struct {
	suite   suite
	seconds float64
	passed  int
	err     error
}

var testResult = regexp.MustCompile(`^( *)--- (PASS|FAIL|SKIP): (\S+) `)

// hear takes one line.
func (v *verdict) hear(line string, n *note) error {
	switch {
	case n == nil:
		if m := testResult.FindStringSubmatch(line); m != nil && v.begun {
			switch {
			case m[2] == "SKIP":
				v.skipped = append(v.skipped, m[3])
			case m[2] == "PASS":
				v.passed[m[3]] = true
			}
		}
	case n.Ready != nil:
		v.ready = n.Ready
	case n.Begin != "":
		if v.begun || v.current >= len(v.plan) || v.plan[v.current].Name != n.Begin {
			return fmt.Errorf("the machine began the suite %q out of turn", n.Begin)
		}
		v.begun, v.passed, v.skipped = true, map[string]bool{}, nil
	case n.End != nil:
		if !v.begun || v.plan[v.current].Name != n.End.Name {
			return fmt.Errorf("the machine ended the suite %q out of turn", n.End.Name)
		}
		v.results = append(v.results, v.judge(n.End))
		v.begun = false
		v.current++
	case n.Error != "":
		v.problem = n.Error
	case n.Done:
		v.done = true
	}
	return nil
}

func (v *verdict) judge(e *end) result {
	s := v.plan[v.current]
	r := result{suite: s, seconds: e.Seconds, passed: len(v.passed)}
	var missing []string
	for _, t := range s.Tests {
		if !v.passed[strings.ReplaceAll(t, " ", "_")] { // as go test prints it
			missing = append(missing, t)
		}
	}
	switch {
	case e.Error != "":
		r.err = fmt.Errorf("the tests failed (%s)", e.Error)
	case len(missing) > 0 && s.Only == "":
		r.err = fmt.Errorf("%s did not run", strings.Join(missing, ", "))
	case len(v.passed) == 0:
		r.err = errors.New("no test ran")
	case len(v.skipped) > 0:
		r.err = fmt.Errorf("%s was skipped", strings.Join(v.skipped, ", "))
	}
	return r
}

// err is nil only if every suite was run to its end and passed.
func (v *verdict) err() error {
	var errs []error
	for _, r := range v.results {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.suite.Name, r.err))
		}
	}
	switch {
	case v.problem != "":
		errs = append(errs, fmt.Errorf("in the machine: %s", v.problem))
	case v.ready == nil:
		errs = append(errs, errors.New("the machine did not come up"))
	case !v.done || len(v.results) != len(v.plan):
		errs = append(errs, fmt.Errorf("the machine ended after %d of %d suites", len(v.results), len(v.plan)))
	}
	return errors.Join(errs...)
}
