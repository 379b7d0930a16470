package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/policy"
)

func (d *decoder) policies(s *section, c *Config) {
	v, _ := s.get("policies")
	p := d.section(v, "policies")
	defer p.done()
	out := &c.Policies
	out.RequirePull = true
	p.yesNo("require_algorithm_pull", &out.RequirePull)
	if basics := false; p.yesNo("allow_basics_algorithm", &basics) {
		out.AllowBasics = &basics
	}
	out.AllowedAlgorithms = d.entries(p, "allowed_algorithms", "every algorithm may run", func(e string) error {
		_, err := policy.New(policy.Config{AllowedAlgorithms: []string{e}})
		return err
	})
	out.AllowedUsers = d.entries(p, "allowed_users", "every user may send tasks", func(e string) error {
		_, err := policy.New(policy.Config{AllowedUsers: []string{e}})
		return err
	})
	out.AllowedOrganizations = d.entries(p, "allowed_organizations", "every organization may send tasks", func(e string) error {
		_, err := policy.New(policy.Config{AllowedOrganizations: []string{e}})
		return err
	})
	if at, line := p.get("allowed_users"); at != nil {
		for _, u := range out.AllowedUsers {
			if _, err := strconv.ParseInt(u, 10, 64); err != nil {
				d.warn(line, "policies.allowed_users", "policies.allowed_users: the server tells this node only the id of a user, so a name such as %q allows nobody; write the id", clip(u))
				break
			}
		}
	}

	out.AllowedStores = d.entries(p, "allowed_algorithm_stores", "tasks need not come from a store", func(e string) error {
		_, err := policy.New(policy.Config{AllowedStores: []string{e}})
		return err
	})
	p.yesNo("allow_either_whitelist_or_store", &out.EitherListOrStore)
	if _, line := p.get("allow_either_whitelist_or_store"); out.EitherListOrStore && len(d.problems) == 0 {
		switch {
		case len(out.AllowedStores) == 0:
			d.warn(line, "policies.allow_either_whitelist_or_store", "policies.allow_either_whitelist_or_store: has no effect without allowed_algorithm_stores; allowed_algorithms decides")
		case len(out.AllowedAlgorithms) == 0:
			d.warn(line, "policies.allow_either_whitelist_or_store", "policies.allow_either_whitelist_or_store: has no effect without allowed_algorithms; allowed_algorithm_stores decides")
		}
	}
	at, _ := p.get("signatures")
	sig := d.section(at, "policies.signatures")
	keys, given := sig.texts("keys")
	sig.done()
	for _, e := range keys {
		file, err := d.absolute(e.text)
		if err != nil {
			d.fail(e.line, sig.child("keys"), "policies.signatures.keys: %v", err)
			continue
		}
		out.SigningKeys = append(out.SigningKeys, file)
	}
	// Leaving the section empty would allow what it seems to forbid.
	if at != nil && len(out.SigningKeys) == 0 && len(d.problems) == 0 {
		d.fail(at.line, "policies.signatures.keys", "policies.signatures.keys is %s; name the files of the public keys that count, or remove policies.signatures", map[bool]string{true: "empty", false: "missing"}[given])
	}
	d.policyRules(p, c)
}

func (d *decoder) policyRules(p *section, c *Config) {
	v, _ := p.get("rules")
	if v == nil {
		d.policyRule(nil, "policies.rules[0]", c)
		return
	}
	if v.kind != list {
		p.wrong(v, "rules", "a list of rules (image, organization, user, and what holds for them)")
		return
	}
	for i, item := range v.items {
		d.policyRule(item, fmt.Sprintf("policies.rules[%d]", i), c)
	}
}

// policyRule reads one rule; nil only makes its keys known. Its limits become a rule of limit_rules, behind those.
func (d *decoder) policyRule(v *value, path string, c *Config) {
	r := d.section(v, path)
	defer r.done()
	before := len(d.problems)
	var out policy.Rule
	r.text("image", &out.Image)
	r.literal("organization", &out.Organization)
	r.integer("user", &out.User, 1, math.MaxInt64)
	out.Databases, out.Functions = r.names("databases"), r.names("functions")
	approve := ""
	r.oneOf("approve", &approve, string(policy.ApproveManual), string(policy.ApproveAutomatic))
	out.Approve = policy.Approve(approve)
	inner, _ := r.get("limits")
	l := d.section(inner, path+".limits")
	change := d.limitValues(l)
	l.done()
	if v == nil || len(d.problems) > before {
		return
	}
	if out.Databases == nil && out.Functions == nil && approve == "" && change.Empty() {
		d.fail(v.line, path, "%s: a rule says what holds for its runs: databases, functions, approve or limits", path)
		return
	}
	if _, err := policy.New(policy.Config{Rules: []policy.Rule{out}}); err != nil {
		d.fail(v.line, path, "%s: %v", path, err)
		return
	}
	if out.Databases != nil {
		at, line := r.get("databases")
		for _, label := range *out.Databases {
			if !slices.ContainsFunc(c.Databases, func(db Database) bool { return db.Label == label }) && at != nil {
				d.warn(line, r.child("databases"), "%s: this node has no database %q", r.child("databases"), clip(label))
			}
		}
	}
	c.Policies.Rules = append(c.Policies.Rules, out)
	if change.Empty() {
		return
	}
	rule, err := limits.NewPolicyRule(path, out.Image, out.Organization, out.User, change)
	if err != nil {
		d.fail(v.line, path, "%s: %v", path, err)
		return
	}
	d.policyLimits = append(d.policyLimits, policyLimits{rule, l})
}

// policyLimits are the limits of a rule, until it is known what they change.
type policyLimits struct {
	limits.Rule
	from *section
}

// limitPolicies puts the limits of policies.rules behind limit_rules.
func (d *decoder) limitPolicies(c *Config) {
	for _, p := range d.policyLimits {
		d.checkLimits(p.from, p.Change.Apply(c.Limits), len(d.problems))
		c.LimitRules = append(c.LimitRules, p.Rule)
	}
}

// names reads a text or a list of them; nil is no key, and an empty list is one.
func (s *section) names(key string) *[]string {
	entries, given := s.texts(key)
	if !given {
		return nil
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.text)
	}
	return &out
}

// entries reads a list of rules, each checked in its own line. An empty list restricts nothing, as in the
// reference node, which is worth saying.
func (d *decoder) entries(p *section, key, meaning string, check func(string) error) []string {
	entries, given := p.texts(key)
	_, line := p.get(key)
	if given && len(entries) == 0 && len(d.problems) == 0 {
		d.warn(line, p.child(key), "%s is empty: %s", p.child(key), meaning)
	}
	var out []string
	for _, e := range entries {
		if err := check(e.text); err != nil {
			d.fail(e.line, p.child(key), "policies.%v", err)
			continue
		}
		out = append(out, e.text)
	}
	return out
}
