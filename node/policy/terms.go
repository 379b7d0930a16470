package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// terms is a compiled Rule.
type terms struct {
	Rule
	name    string   // "rule 2 of policies.rules"
	pattern *Pattern // nil without an image
	id      int64    // of the organization; 0 where it is named
}

func compileTerms(number int, r Rule) (terms, error) {
	t := terms{Rule: r, name: fmt.Sprintf("rule %d of policies.rules", number)}
	if r.Image != "" {
		p, err := CompilePattern(r.Image)
		if err != nil {
			return t, fmt.Errorf("image: %w", err)
		}
		t.pattern = p
	}
	if strings.TrimSpace(r.Organization) != r.Organization || len(r.Organization) > maxRule {
		return t, fmt.Errorf("organization: %q is not an id or a name; remove the spaces around it", shorten(r.Organization))
	}
	if id, err := strconv.ParseInt(r.Organization, 10, 64); err == nil {
		if id <= 0 {
			return t, fmt.Errorf("organization: %d is not the id of an organization", id)
		}
		t.id = id
	}
	if r.User < 0 {
		return t, fmt.Errorf("user: %d is not the id of a user", r.User)
	}
	if r.Approve != "" && r.Approve != ApproveManual && r.Approve != ApproveAutomatic {
		return t, fmt.Errorf("approve: %q is neither manual nor automatic", shorten(string(r.Approve)))
	}
	for key, list := range map[string]*[]string{"databases": r.Databases, "functions": r.Functions} {
		if list == nil {
			continue
		}
		for _, e := range *list {
			if e == "" || strings.TrimSpace(e) != e || len(e) > maxRule {
				return t, fmt.Errorf("%s: %q is not a name; remove the spaces around it or the whole entry", key, shorten(e))
			}
		}
	}
	return t, nil
}

// matches tells whether a rule is about a request.
func (t *terms) matches(c candidate, r Request) (verdict, error) {
	if t.User != 0 && t.User != r.UserID {
		return no, nil
	}
	if yes, err := t.sentBy(r); !yes || err != nil {
		return no, err
	}
	if t.pattern == nil {
		return yes, nil
	}
	return t.pattern.rule.match(c)
}

func (t *terms) sentBy(r Request) (bool, error) {
	switch {
	case t.Organization == "":
		return true, nil
	case t.id != 0:
		return t.id == r.OrganizationID, nil
	case r.OrganizationID == 0:
		return false, errors.New("it is not known which organization sent the task")
	case r.OrganizationName == nil:
		return false, errors.New("the name of the organization is not known")
	}
	name, err := r.OrganizationName()
	if err != nil {
		return false, fmt.Errorf("the name of organization %d cannot be found: %w", r.OrganizationID, err)
	}
	return name == t.Organization, nil
}

// said is the last word of the rules about one thing.
type said struct {
	by   *terms
	sure bool // false where only the digest tells whether the rule matches
}

// bind applies the rules. A rule that cannot be evaluated refuses: left out it could bind less than it was to.
func (p *Policy) bind(c candidate, r Request) Decision {
	var databases, functions, approve said
	for i := range p.terms {
		t := &p.terms[i]
		v, err := t.matches(c, r)
		if err != nil {
			return refuse("This node could not apply %s: %v.", t.name, err)
		}
		if v == no {
			continue
		}
		for _, about := range []struct {
			says bool
			to   *said
		}{{t.Databases != nil, &databases}, {t.Functions != nil, &functions}, {t.Approve != "", &approve}} {
			if about.says {
				*about.to = said{t, v == yes}
			}
		}
	}
	if databases.sure {
		for _, d := range r.Databases {
			if !slices.Contains(*databases.by.Databases, d) {
				return refuse("This node does not give this run the database %q (%s).", shorten(d), databases.by.name)
			}
		}
	}
	if functions.sure && !slices.Contains(*functions.by.Functions, r.Function) {
		return refuse("This node does not let this run call the function %q (%s).", shorten(r.Function), functions.by.name)
	}
	switch {
	case approve.by == nil:
		return allow("No rule is against it.")
	case !approve.sure:
		d := allow("Whether the administrator has to approve the run depends on the digest of its image.")
		d.Perhaps = true
		return d
	case approve.by.Approve == ApproveManual:
		d := allow("The run may begin when the administrator of this node approves it (%s).", approve.by.name)
		d.Manual = true
		return d
	}
	return allow("The run needs no approval (%s).", approve.by.name)
}
