package config

import (
	"strconv"

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

	// A store cannot be asked yet. Leaving the rule out would allow more than the administrator wants.
	if stores, _ := p.texts("allowed_algorithm_stores"); len(stores) > 0 {
		d.fail(stores[0].line, "policies.allowed_algorithm_stores", "policies.allowed_algorithm_stores: not available in this version, and running without it would allow what it forbids; list the images in allowed_algorithms and remove it")
	}
	either := false
	if _, line := p.get("allow_either_whitelist_or_store"); p.yesNo("allow_either_whitelist_or_store", &either) && either && !p.has("allowed_algorithm_stores") {
		d.warn(line, "policies.allow_either_whitelist_or_store", "policies.allow_either_whitelist_or_store: has no effect without allowed_algorithm_stores; allowed_algorithms decides")
	}
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
