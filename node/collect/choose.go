package collect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/v6node/v6node/internal/units"
)

// Thing is something that takes room and can be made or fetched again.
type Thing struct {
	Kind, Name string
	Names      []string // references and digests that a pin may mean it by
	Size       int64    // bytes
	UsedAt     time.Time
	// Kept things are needed or pinned: they stay, and count in a budget.
	Kept bool
	// Remove removes it, and tells whether it did: what is in use by now stays.
	Remove func(context.Context) (bool, error)
}

// Choice is a thing that may go, and why.
type Choice struct {
	Thing
	Reason string
}

// Rules bound things of one kind. Zero is no bound.
type Rules struct {
	MaxAge  time.Duration // since the last use
	MaxSize int64         // of all together
	// All lets everything go that is not kept.
	All bool
}

// Choose splits things into those that go by the rules and the rest, each with
// the least recently used first.
func Choose(now time.Time, things []Thing, r Rules) (gone []Choice, rest []Thing) {
	var total int64
	for _, t := range things {
		total += t.Size
	}
	for _, t := range slices.SortedFunc(slices.Values(things), older) {
		reason := ""
		idle := now.Sub(t.UsedAt)
		switch {
		case t.Kept:
		case r.All:
			reason = "nothing needs it"
		case r.MaxAge > 0 && idle >= r.MaxAge:
			reason = "not used for " + period(idle)
		case r.MaxSize > 0 && total > r.MaxSize:
			reason = "not used for the longest time, and all together take more than " + units.FormatSize(r.MaxSize)
		}
		if reason == "" {
			rest = append(rest, t)
			continue
		}
		total -= t.Size
		gone = append(gone, Choice{t, reason})
	}
	return gone, rest
}

func older(a, b Thing) int {
	return cmp.Or(a.UsedAt.Compare(b.UsedAt), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// Urgent are the things that go, one after the other, for as long as a file
// system is short of room.
func Urgent(rest []Thing) []Choice {
	var out []Choice
	for _, t := range slices.SortedFunc(slices.Values(rest), older) {
		if !t.Kept {
			out = append(out, Choice{t, "not needed now, and its file system is short of room"})
		}
	}
	return out
}

// period is a time without needless digits: "20 days", "90 minutes".
func period(d time.Duration) string {
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if n := d / u.of; n >= 2 {
			return fmt.Sprintf("%d %s", n, u.name)
		}
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
