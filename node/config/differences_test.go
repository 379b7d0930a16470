package config

import (
	"reflect"
	"slices"
	"testing"
)

func TestEveryFieldHasItsKey(t *testing.T) {
	c := reflect.TypeFor[Config]()
	for i := range c.NumField() {
		if keyOf[c.Field(i).Name] == "" {
			t.Errorf("the field %s has no key", c.Field(i).Name)
		}
	}
	if len(keyOf) != c.NumField() {
		t.Errorf("%d keys for %d fields", len(keyOf), c.NumField())
	}
}

func TestDifferencesAreNamedByTheirKeys(t *testing.T) {
	const text = minimal + `
databases: [{label: a, uri: /a.csv, type: csv, env: {password: one}}]
policies: {allowed_algorithms: [a/b], rules: [{image: a/b, approve: manual, limits: {memory: 1g}}]}
limit_rules: [{image: a/.*, limits: {pids: 10, ulimits: nofile=5}}]
docker_registries: [{registry: x.org, username: u, password: one}]
`
	base, _ := mustParse(t, text)
	same, _ := mustParse(t, text)
	if d := Differences(base, same); len(d) != 0 {
		t.Errorf("a file differs from itself in %q", d)
	}
	for _, c := range []struct {
		change func(*Config)
		want   []string
	}{
		{func(c *Config) { c.Databases[0].Env["password"] = "two" }, []string{"databases"}},
		{func(c *Config) { c.Registries[0].Password = NewSecret("two") }, []string{"docker_registries"}},
		{func(c *Config) { c.APIKey = NewSecret("two") }, []string{"api_key"}},
		{func(c *Config) { c.LimitRules[0].Organization = "6" }, []string{"limit_rules"}},
		{func(c *Config) { c.LimitRules = c.LimitRules[1:] }, []string{"limit_rules"}},
		{func(c *Config) { c.Policies.Rules[0].Approve = "" }, []string{"policies"}},
		{func(c *Config) { c.LogLevel, c.Limits.Pids = 8, 5 }, []string{"logging.level", "limits"}},
	} {
		other, _ := mustParse(t, text)
		c.change(other)
		if d := Differences(base, other); !slices.Equal(d, c.want) {
			t.Errorf("differences %q, want %q", d, c.want)
		}
	}
	other, _ := mustParse(t, minimal+"limit_rules: [{image: a/.*, limits: {pids: 11, ulimits: nofile=5}}]\n")
	if d := Differences(base, other); !slices.Contains(d, "limit_rules") {
		t.Errorf("a changed limit of a rule is not among %q", d)
	}
}
