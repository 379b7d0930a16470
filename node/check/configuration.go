package check

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/engine"
	"github.com/v6node/v6node/node/limits"
)

// configuration passes on what the file gave rise to.
func (o Options) configuration(_ context.Context, report func(Result)) error {
	r := reporter(report)
	var problems config.Problems
	switch {
	case errors.As(o.Invalid, &problems):
		for _, p := range problems {
			what, fix := cutLast(p.Message)
			if fix == "" {
				fix = "correct it"
			}
			r.fail(where(p.Key), fix+place(p.File, p.Line), "%s", what)
		}
	case o.Invalid != nil:
		what, fix := cutAt(o.Invalid.Error(), ": ")
		r.fail("", fix, "%s", what)
	}
	for _, w := range o.Warnings {
		what, fix := cutLast(w.Message)
		if fix != "" {
			fix += place(w.File, w.Line)
		}
		r.warn(where(w.Key), fix, "%s", what)
	}
	if o.Invalid == nil && len(o.Warnings) == 0 {
		r.ok("", "%s has no faults", o.File)
	}
	return nil
}

// limits holds the configured limits against the machine.
func (o Options) limits(_ context.Context, report func(Result)) error {
	r := o.enforced(report)
	m := engine.Machine()
	fine := true
	hold := func(where string, l limits.Limits) {
		impossible, pointless := l.Fit(m)
		fine = fine && len(impossible)+len(pointless) == 0
		for _, p := range impossible {
			r.fail(where+p.Key, "correct it, or set resources.enforce to "+config.EnforceBestEffort+" to run without it", "%s", p)
		}
		for _, p := range pointless {
			r.warn(where+p.Key, "correct it", "%s", p)
		}
	}
	hold("limits.", o.Config.Limits)
	for i := range o.Config.LimitRules {
		rule := &o.Config.LimitRules[i]
		hold(rule.Path(i)+".limits.", rule.Change.Apply(limits.Limits{}))
	}
	if b := o.Config.Budget; m.Memory > 0 && b.Memory > m.Memory {
		fine = false
		r.warn("resources.budget.memory", "correct it", "%s is more than the machine has (%s)", units.FormatSize(b.Memory), units.FormatSize(m.Memory))
	}
	if b, n := o.Config.Budget, int64(len(m.CPUs)); n > 0 && b.CPUs > n {
		fine = false
		r.warn("resources.budget.cpus", "correct it", "%d is more than the machine has (%d)", b.CPUs, n)
	}
	if fine {
		r.ok("", "can be applied on this machine")
	}
	return nil
}

// sif looks at where SIF images and the keys of their signers are.
func (o Options) sif(_ context.Context, report func(Result)) error {
	r := reporter(report)
	for _, dir := range o.Config.SIF.Directories {
		if _, err := os.ReadDir(dir); err != nil {
			r.fail("sif.directories", "correct sif.directories, or let the node's user read it", "%v", err)
		} else {
			r.ok("sif.directories", "%s", dir)
		}
	}
	o.sifKeys(r)
	return nil
}

func where(key string) string {
	if key == "" {
		return "file"
	}
	return key
}

// place is the place in the file, behind what to do.
func place(file string, line int) string {
	if line == 0 {
		return " (" + file + ")"
	}
	return " (" + file + ":" + strconv.Itoa(line) + ")"
}
