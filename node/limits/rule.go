package limits

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/v6node/v6node/node/policy"
)

// Set is the configured limits: those of every run, and rules for some.
type Set struct {
	Default Limits
	Rules   []Rule // in the order of the file
}

// Rule changes the limits of the runs that it matches: those of the image, if
// it names one, and of the organization, if it names one.
type Rule struct {
	Image        string // as an entry of policies.allowed_algorithms; "" is every image
	Organization string // id or exact name of the organization that sent the task; "" is every one
	Change       Change

	pattern *policy.Pattern // nil without an image
}

// NewRule compiles a rule. It must name an image, an organization or both.
func NewRule(image, organization string, c Change) (Rule, error) {
	r := Rule{Image: image, Organization: organization, Change: c}
	if image == "" && organization == "" {
		return r, errors.New("it names neither an image nor an organization; what holds for every run belongs in limits")
	}
	if strings.TrimSpace(organization) != organization || len(organization) > 1024 {
		return r, fmt.Errorf("%q is not an id or a name of an organization; remove the spaces around it", organization)
	}
	if image != "" {
		p, err := policy.CompilePattern(image)
		if err != nil {
			return r, err
		}
		r.pattern = p
	}
	return r, nil
}

// Request is a run whose limits are wanted. The functions are asked only where a
// rule needs their answer; they may be nil, which is an error then.
type Request struct {
	Image          string // as the task names it
	OrganizationID int64  // that sent the task; 0 when unknown, which matches no rule
	// OrganizationName finds the name of OrganizationID.
	OrganizationName func() (string, error)
	// Digest finds the digest of Image, and of an oras:// image that of its file.
	Digest func() (digest, file string, err error)
	// DigestOf resolves an image that a rule names by tag.
	DigestOf func(ref string) (string, error)
}

// Resolve returns the limits of a run: the defaults, changed by every rule that
// matches, in the order of the file, so that of two rules that set the same
// limit the later one wins. matched has the indices of these rules. What cannot
// be found out is an error, and never a rule left out.
func (s *Set) Resolve(q Request) (l Limits, matched []int, err error) {
	l = s.Default
	for i := range s.Rules {
		yes, err := s.Rules[i].matches(&q)
		if err != nil {
			return Limits{}, nil, fmt.Errorf("rule %d of limit_rules could not be applied: %w", i+1, err)
		}
		if yes {
			l = s.Rules[i].Change.Apply(l)
			matched = append(matched, i)
		}
	}
	if p := l.Check(); len(p) > 0 {
		return Limits{}, nil, fmt.Errorf("the rules of limit_rules that match this run contradict each other (%s)", p[0])
	}
	return l, matched, nil
}

func (r *Rule) matches(q *Request) (bool, error) {
	if yes, err := r.sender(q); !yes {
		return false, err
	}
	if r.pattern == nil {
		return true, nil
	}
	m, err := r.pattern.Match(q.Image, "", "", nil)
	if err != nil || m != policy.Unsure {
		return m == policy.Matches, err
	}
	if q.Digest == nil {
		return false, errors.New("the digest of the image is not known")
	}
	digest, file, err := q.Digest()
	if err != nil {
		return false, err
	}
	m, err = r.pattern.Match(q.Image, digest, file, q.DigestOf)
	return m == policy.Matches, err
}

func (r *Rule) sender(q *Request) (bool, error) {
	if r.Organization == "" {
		return true, nil
	}
	if q.OrganizationID == 0 {
		return false, nil
	}
	if id, err := strconv.ParseInt(r.Organization, 10, 64); err == nil {
		return id == q.OrganizationID, nil
	}
	if q.OrganizationName == nil {
		return false, errors.New("the name of the organization is not known")
	}
	name, err := q.OrganizationName()
	if err != nil {
		return false, fmt.Errorf("the name of organization %d cannot be found: %w", q.OrganizationID, err)
	}
	return name == r.Organization, nil
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
