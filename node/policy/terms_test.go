package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const here = "ghcr.io/org/algo:v1"

func from(id int64, addresses ...string) Request {
	return Request{Image: here, Digest: digestA, StoreID: id, StoreAddresses: func() ([]string, error) { return addresses, nil }}
}

func TestStoresAreComparedByTheirWholeAddress(t *testing.T) {
	for _, c := range []struct {
		entry, address string
		want           bool
	}{
		{"https://store.example.org", "https://store.example.org", true},
		{"https://store.example.org/", "https://STORE.example.org:443", true},
		{"https://store.example.org", "https://store.example.org.evil.net", false},
		{"https://store.example.org", "https://store.example.org/other", false},
		{"https://store.example.org", "http://store.example.org", false},
		{"https://store.example.org", "https://store.example.org:8443", false},
		{"https://store.example.org", "https://store.example.org@evil.net", false},
		{"https://store.example.org", "https://evil.net/?https://store.example.org", false},
		{"https://store.example.org/api", "https://store.example.org/api/", true},
		{`^https://store\.example\.org`, "https://store.example.org", true},
		{`^https://store\.example\.org/$`, "https://store.example.org", true},
		{`^https://store\.example\.org`, "https://store.example.org.evil.net", false},
		{`^https://store\.example\.org`, "https://store.example.org/api", false},
		{`.*`, "no address", false},
		{`https://a\.org|https://b\.org`, "https://b.org", true},
		{`https://a\.org|https://b\.org`, "https://b.org.evil.net", false},
	} {
		p := compile(t, Config{AllowedStores: []string{c.entry}})
		if d := p.Check(from(51, c.address)); d.Allowed != c.want || !strings.HasSuffix(d.Reason, ".") {
			t.Errorf("%q, store %q: %+v", c.entry, c.address, d)
		}
	}
	p := compile(t, Config{AllowedStores: []string{"https://store.example.org/api"}})
	if d := p.Check(from(51, "https://store.example.org", "https://store.example.org/api")); !d.Allowed {
		t.Errorf("the address with the path of the API does not count: %+v", d)
	}
	for name, r := range map[string]Request{
		"from no store":    {Image: here, Digest: digestA},
		"no look-up":       {Image: here, Digest: digestA, StoreID: 51},
		"a failed look-up": {Image: here, Digest: digestA, StoreID: 51, StoreAddresses: func() ([]string, error) { return nil, errors.New("server away") }},
	} {
		if d := p.Check(r); d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
		if d := p.Possible(r); d.Allowed {
			t.Errorf("%s is possible: %+v", name, d)
		}
	}
	for _, bad := range []string{"", "store.example.org", " https://a.org", "https://u:p@a.org", `(`, `a)|(b`, "ftp://a.org", strings.Repeat("x", 2000)} {
		if _, err := New(Config{AllowedStores: []string{bad}}); err == nil || !strings.Contains(err.Error(), "allowed_algorithm_stores") {
			t.Errorf("the store %q: %v", bad, err)
		}
	}
}

func TestListAndStoreMustBothAllowUnlessEitherDoes(t *testing.T) {
	const listed, store = "ghcr.io/org/algo", "https://store.example.org"
	for _, c := range []struct {
		name          string
		list, stores  []string
		either, basic bool
		image, from   string
		want          bool
	}{
		{"both, both allow", []string{listed}, []string{store}, false, false, here, store, true},
		{"both, only the list", []string{listed}, []string{store}, false, false, here, "https://evil.net", false},
		{"both, only the store", []string{"python"}, []string{store}, false, false, here, store, false},
		{"either, only the list", []string{listed}, []string{store}, true, false, here, "https://evil.net", true},
		{"either, only the store", []string{"python"}, []string{store}, true, false, here, store, true},
		{"either, none", []string{"python"}, []string{store}, true, false, here, "https://evil.net", false},
		{"either without a list", nil, []string{store}, true, false, here, "https://evil.net", false},
		{"either without stores", []string{"python"}, nil, true, false, here, store, false},
		{"a store alone", nil, []string{store}, false, false, here, store, true},
		{"basics need no store", []string{listed}, []string{store}, false, true, BasicsImage + ":1", "https://evil.net", true},
		{"basics is the image, not a store's", nil, []string{store}, false, true, here, "https://evil.net", false},
	} {
		config := Config{AllowedAlgorithms: c.list, AllowedStores: c.stores, EitherListOrStore: c.either}
		if c.basic {
			config.AllowBasics = ptr(true)
		}
		p := compile(t, config)
		r := from(51, c.from)
		r.Image = c.image
		if d := p.Check(r); d.Allowed != c.want {
			t.Errorf("%s: %+v", c.name, d)
		}
		if c.want && !p.Possible(r).Allowed {
			t.Errorf("%s: called impossible", c.name)
		}
	}
}

func list(s ...string) *[]string { return &s }

func TestOfTwoRulesAboutTheSameTheLaterOneHolds(t *testing.T) {
	name := func(s string, err error) func() (string, error) { return func() (string, error) { return s, err } }
	p := compile(t, Config{Rules: []Rule{
		{Databases: list("public"), Functions: list("average", "count")},
		{Organization: "Maastro", Databases: list("public", "patients")},
		{Organization: "6", Functions: list()},
		{Image: digestB, Approve: ApproveManual},
		{User: 7, Approve: ApproveAutomatic},
		{Image: "ghcr.io/org/open", Databases: list("patients"), Approve: ApproveManual},
	}})
	for _, c := range []struct {
		name           string
		r              Request
		want, manual   bool
		says           string
		possiblyManual bool
	}{
		{"the rule for all", Request{Databases: []string{"public"}, Function: "count"}, true, false, "", true},
		{"a database that it does not name", Request{Databases: []string{"public", "patients"}, Function: "count"}, false, false, "rule 1 ", false},
		{"a function that it does not name", Request{Function: "dump"}, false, false, "rule 1 ", false},
		{"no function at all", Request{}, false, false, "rule 1 ", false},
		{"functions are whole names", Request{Function: "averages"}, false, false, "rule 1 ", false},
		{"a later rule gives more", Request{OrganizationID: 4, OrganizationName: name("Maastro", nil), Databases: []string{"patients"}, Function: "count"}, true, false, "", true},
		{"a later rule gives less", Request{OrganizationID: 6, OrganizationName: name("", nil), Function: "count"}, false, false, "rule 3 ", false},
		{"names are exact", Request{OrganizationID: 4, OrganizationName: name("maastro", nil), Databases: []string{"patients"}, Function: "count"}, false, false, "rule 1 ", false},
		{"a name that is not known", Request{OrganizationID: 4, OrganizationName: name("", errors.New("server away")), Function: "count"}, false, false, "server away", false},
		{"no way to a name", Request{OrganizationID: 4, Function: "count"}, false, false, "rule 2 ", false},
		{"approval by digest", Request{Image: "ghcr.io/org/x@" + digestB, Digest: digestB, Function: "count"}, true, true, "rule 4 ", true},
		{"approval taken back", Request{Image: "ghcr.io/org/x@" + digestB, Digest: digestB, UserID: 7, Function: "count"}, true, false, "", false},
		{"the last rule", Request{Image: "ghcr.io/org/open", UserID: 7, Databases: []string{"patients"}, Function: "count"}, true, true, "rule 6 ", true},
	} {
		if c.r.Image == "" {
			c.r.Image = here
		}
		if c.r.Digest == "" {
			c.r.Digest = digestA
		}
		if c.r.OrganizationID == 0 {
			c.r.OrganizationID, c.r.OrganizationName = 2, name("Other", nil)
		}
		d := p.Check(c.r)
		if d.Allowed != c.want || d.Manual != c.manual || d.Perhaps || !strings.Contains(d.Reason, c.says) {
			t.Errorf("%s: %+v", c.name, d)
		}
		before := p.Possible(c.r)
		if c.want && !before.Allowed || (before.Manual || before.Perhaps) != c.possiblyManual && before.Allowed {
			t.Errorf("%s, before the look-up: %+v", c.name, before)
		}
	}
}

func TestWhatOnlyTheDigestTellsIsNotDecidedBefore(t *testing.T) {
	p := compile(t, Config{Rules: []Rule{{Functions: list("count")}, {Image: digestA, Functions: list("dump")}}})
	r := Request{Image: here, Function: "dump"}
	if d := p.Possible(r); !d.Allowed {
		t.Errorf("refused although the digest may allow it: %+v", d)
	}
	for digest, want := range map[string]bool{digestA: true, digestB: false} {
		r.Digest = digest
		if d := p.Check(r); d.Allowed != want {
			t.Errorf("%s: %+v", digest, d)
		}
	}
}

func TestARuleThatCannotBeReadIsRefused(t *testing.T) {
	for says, r := range map[string]Rule{
		"image":        {Image: "Bad/Name"},
		"organization": {Organization: " a"},
		"not the id":   {Organization: "-3"},
		"user":         {User: -1},
		"approve":      {Approve: "perhaps"},
		"databases":    {Databases: list("a", "")},
		"functions":    {Functions: list(" x")},
	} {
		if _, err := New(Config{Rules: []Rule{{}, r}}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestADecisionTellsHowItCameAbout(t *testing.T) {
	p := compile(t, Config{
		AllowedAlgorithms: []string{"ghcr.io/org/algo"}, AllowedStores: []string{"https://store.example.org"}, AllowedUsers: []string{"7"},
		Rules: []Rule{{Functions: list("count")}},
	})
	r := from(51, "https://store.example.org")
	r.UserID, r.Function = 7, "dump"
	d, steps := p.Explain(r)
	var asked []string
	for i, s := range steps {
		asked = append(asked, s.Rule)
		if last := i == len(steps)-1; s.Allowed == last || s.Reason == "" {
			t.Errorf("step %d: %+v", i, s)
		}
	}
	if want := []string{"allowed_users", "allowed_algorithm_stores", "allowed_algorithms", "rules"}; d.Allowed || !slices.Equal(asked, want) {
		t.Errorf("%+v after %q", d, asked)
	}
	r.UserID = 8
	if _, steps := p.Explain(r); len(steps) != 1 || steps[0].Rule != "allowed_users" {
		t.Errorf("asked on after a refusal: %+v", steps)
	}
}

// FuzzStores: no entry allows the address of another host than it allows by its own word.
func FuzzStores(f *testing.F) {
	f.Add("https://store.example.org", "https://store.example.org.evil.net")
	f.Add(`^https://store\.example\.org`, "https://store.example.org/")
	f.Add("https://a.org:443/", "HTTPS://A.org")
	f.Add(".*", "https://u@a.org")
	f.Fuzz(func(t *testing.T, entry, address string) {
		p, err := New(Config{AllowedStores: []string{entry}})
		if err != nil {
			return
		}
		d := p.Check(from(51, address))
		plain, ok := plainAddress(address)
		if !ok && d.Allowed {
			t.Fatalf("%q allowed what is no address, %q", entry, address)
		}
		if again, ok := plainAddress(plain); ok && again != plain {
			t.Fatalf("%q is spelled %q and then %q", address, plain, again)
		}
		if want, exact := plainAddress(entry); exact && !strings.ContainsAny(entry, `\^$*+?()[]{}|`) && d.Allowed != (ok && want == plain) {
			t.Fatalf("%q, %q: %+v", entry, address, d)
		}
	})
}
