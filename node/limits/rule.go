package limits

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/v6node/v6node/node/policy"
)

// Set is the configured limits: those of every run, and rules for some.
type Set struct {
	Default Limits
	Rules   []Rule // in the order of the file
}

// Rule changes the limits of the runs that it picks.
type Rule struct {
	policy.Selector
	Change Change
	Key    string // where it stands in the configuration; "" is by its number in limit_rules
}

// NewRule compiles a rule. It must name an image, an organization or both.
func NewRule(image, organization string, c Change) (Rule, error) {
	if image == "" && organization == "" {
		return Rule{}, errors.New("it names neither an image nor an organization; what holds for every run belongs in limits")
	}
	s, err := policy.NewSelector(image, organization, 0)
	return Rule{Selector: s, Change: c}, err
}

// NewPolicyRule compiles the limits of an entry of policies.rules, which may be about every run.
func NewPolicyRule(key, image, organization string, user int64, c Change) (Rule, error) {
	s, err := policy.NewSelector(image, organization, user)
	return Rule{Selector: s, Change: c, Key: key}, err
}

// Equal reports whether two rules say the same.
func (r Rule) Equal(o Rule) bool {
	return r.Selector.Equal(o.Selector) && r.Key == o.Key && reflect.DeepEqual(r.Change, o.Change)
}

// Path is where the rule of that index stands in the configuration.
func (r *Rule) Path(index int) string {
	if r.Key != "" {
		return r.Key
	}
	return fmt.Sprintf("limit_rules[%d]", index)
}

// Request is a run whose limits are wanted.
type Request = policy.Subject

// Resolve returns the limits of a run: the defaults, changed by every rule that
// matches, in the order of the file, so that of two rules that set the same
// limit the later one wins. matched has the indices of these rules. What cannot
// be found out is an error, and never a rule left out.
func (s *Set) Resolve(q Request) (l Limits, matched []int, err error) {
	l = s.Default
	for i := range s.Rules {
		yes, err := s.Rules[i].Picks(&q)
		if err != nil {
			name := fmt.Sprintf("rule %d of limit_rules", i+1)
			if s.Rules[i].Key != "" {
				name = "the limits of " + s.Rules[i].Key
			}
			return Limits{}, nil, fmt.Errorf("%s could not be applied: %w", name, err)
		}
		if yes {
			l = s.Rules[i].Change.Apply(l)
			matched = append(matched, i)
		}
	}
	if p := l.Check(); len(p) > 0 {
		return Limits{}, nil, fmt.Errorf("the rules that match this run contradict each other (%s)", p[0])
	}
	return l, matched, nil
}

// Ulimits returns the different lists of ulimits that runs can have, without the
// empty one.
func (s *Set) Ulimits() [][]Ulimit {
	var out [][]Ulimit
	add := func(u []Ulimit) {
		if len(u) > 0 && !slices.ContainsFunc(out, func(o []Ulimit) bool { return slices.Equal(o, u) }) {
			out = append(out, u)
		}
	}
	add(s.Default.Ulimits)
	for i := range s.Rules {
		add(s.Rules[i].Change.Apply(s.Default).Ulimits)
	}
	return out
}
