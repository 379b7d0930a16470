package policy

import (
	"errors"
	"strings"
	"testing"
)

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

func compile(t testing.TB, c Config) *Policy {
	t.Helper()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ptr(b bool) *bool { return &b }

func TestImagesAreDecidedByTheirCanonicalNameAndDigest(t *testing.T) {
	for _, c := range []struct {
		rule, image string
		want        bool
	}{
		// An expression must match the whole name.
		{`^ghcr\.io/org/algo`, "ghcr.io/org/algo", true},
		{`^ghcr\.io/org/algo`, "ghcr.io/org/algo:v1", true},
		{`^ghcr\.io/org/algo`, "ghcr.io/org/algo@" + digestA, true},
		{`^ghcr\.io/org/algo`, "ghcr.io/org/algo-evil", false},
		{`^ghcr\.io/org/algo`, "ghcr.io/org/algo/evil", false},
		{`^ghcr\.io/org/algo`, "evil.io/ghcr.io/org/algo", false},
		{`ghcr\.io/org/algo`, "evil.io/ghcr.io/org/algo", false},
		{`ghcr\.io/org/algo`, "docker.io/ghcr.io/org/algo", false},
		{`^harbor2\.vantage6\.ai/[a-zA-Z]+/[a-zA-Z]+`, "harbor2.vantage6.ai/algorithms/glm:latest", true},
		{`^harbor2\.vantage6\.ai/[a-zA-Z]+/[a-zA-Z]+`, "harbor2.vantage6.ai/algorithms/glm-2", false},
		{`^harbor2\.vantage6\.ai/algorithms/glm$`, "harbor2.vantage6.ai/algorithms/glm:3", true},
		{`a|ghcr\.io/org/x`, "ghcr.io/org/x-evil", false},
		{`^ghcr.io/org/x$|^ghcr.io/org/y$`, "ghcr.io/org/y", true},
		{`(?i)GHCR\.io/org/x`, "ghcr.io/org/x", true},
		{`(?m)^ghcr\.io/org/x$`, "ghcr.io/org/x", true},
		{`.*`, "ghcr.io/org/x", true},
		// An expression that names tags or digests means exactly those.
		{`^ghcr\.io/org/algo:v1$`, "ghcr.io/org/algo:v1", true},
		{`^ghcr\.io/org/algo:v1$`, "ghcr.io/org/algo:v2", false},
		{`^ghcr\.io/org/algo:v1$`, "ghcr.io/org/algo", false},
		{`^ghcr\.io/org/algo:v1$`, "ghcr.io/org/algo:v1@" + digestA, false},
		{`ghcr\.io/org/algo(:v1)?`, "ghcr.io/org/algo:v2", false},
		{`ghcr\.io/org/algo(:v1|/sub)?`, "ghcr.io/org/algo:v2", false},
		{`ghcr\.io/org/(?:algo)`, "ghcr.io/org/algo:v2", true},
		{`ghcr\.io/org/[[:alpha:]]+`, "ghcr.io/org/algo:v2", true},
		{`127\.0\.0\.1:5000/(algo)`, "127.0.0.1:5000/algo:v2", true},
		{`127\.0\.0\.1:\d+/algo`, "127.0.0.1:5000/algo:v2", true},
		{`ghcr\.io/org/algo(:latest)?`, "ghcr.io/org/algo", true},
		{`^ghcr\.io/org/algo@` + digestA + `$`, "ghcr.io/org/algo:v7", true},
		{`^ghcr\.io/org/algo@` + digestB + `$`, "ghcr.io/org/algo:v7", false},
		{`^ghcr\.io/org/algo@` + digestA + `$`, "ghcr.io/org/algo@" + digestA, true},
		// Short and long names, case, and ports.
		{`^python$`, "docker.io/library/python:3", true},
		{`docker\.io/library/python`, "python", true},
		{"python", "docker.io/library/python:3", true},
		{"docker.io/library/python", "python", true},
		{"Docker.io/python", "index.docker.io/library/python", true},
		{"python", "ghcr.io/library/python", false},
		{"python", "evil/python", false},
		{"ghcr.io/org/algo", "GHCR.io/org/algo", true},
		{"ghcr.io/org/algo", "ghcr.io:443/org/algo", false},
		{"ghcr.io/org/algo", "ghcr.io/org/algo-evil", false},
		{"ghcr.io/org/algo", "ghcr.io/org/Algo", false},
		{"ghcrxio/org/algo", "ghcr.io/org/algo", false},
		{"ghcr.io/org/algo", "ghcrxio/org/algo", false},
		// Names with tags and digests.
		{"ghcr.io/org/algo:v1", "ghcr.io/org/algo:v1", true},
		{"ghcr.io/org/algo:v1", "ghcr.io/org/algo:v2", false},
		{"ghcr.io/org/algo:latest", "ghcr.io/org/algo", true},
		{"ghcr.io/org/algo:v1", "ghcr.io/org/algo:v1@" + digestA, false},
		{"ghcr.io/org/algo@" + digestA, "ghcr.io/org/algo:v9", true},
		{"ghcr.io/org/algo@" + digestA, "ghcr.io/other/algo:v9", false},
		{"ghcr.io/org/algo@" + digestB, "ghcr.io/org/algo", false},
		{digestA, "anything.io/at/all", true},
		{digestB, "anything.io/at/all", false},
		{digestA, "anything.io/at/all@" + digestB, false},
	} {
		p := compile(t, Config{AllowedAlgorithms: []string{c.rule}})
		d := p.Check(Request{Image: c.image, Digest: digestA})
		if d.Allowed != c.want {
			t.Errorf("rule %s, image %s: %+v, want allowed=%v", c.rule, c.image, d, c.want)
		}
		if d.Allowed && !p.Possible(Request{Image: c.image}).Allowed {
			t.Errorf("rule %s, image %s: allowed, yet called impossible before the look-up", c.rule, c.image)
		}
		if !strings.HasSuffix(d.Reason, ".") {
			t.Errorf("the reason %q is not a sentence", d.Reason)
		}
	}
}

func TestSIFImagesAndImagesOfRegistriesNeverShareARule(t *testing.T) {
	for _, c := range []struct {
		rule, image string
		want        bool
	}{
		{"sif:tools/algo", "sif:tools/algo", true},
		{"sif:tools/algo", "sif:tools/algo@" + digestA, true},
		{"sif:tools/algo", "sif:tools/algo.sif", false},
		{"sif:tools/algo", "sif:tools/algo2", false},
		{"sif:algo@" + digestA, "sif:algo", true},
		{"sif:algo@" + digestB, "sif:algo", false},
		{"sif:other@" + digestA, "sif:algo", false},
		{digestA, "sif:anything", true},
		{digestB, "sif:anything", false},

		{"oras://ghcr.io/org/algo", "oras://ghcr.io/org/algo:v3", true},
		{"oras://ghcr.io/org/algo", "oras://GHCR.io/org/algo", true},
		{"oras://ghcr.io/org/algo", "oras://ghcr.io/org/algo@" + digestA, true},
		{"oras://ghcr.io/org/algo:v1", "oras://ghcr.io/org/algo:v1", true},
		{"oras://ghcr.io/org/algo:v1", "oras://ghcr.io/org/algo:v2", false},
		{"oras://ghcr.io/org/algo@" + digestA, "oras://ghcr.io/org/algo:v1", true}, // the artifact's manifest
		{"oras://ghcr.io/org/algo@" + digestB, "oras://ghcr.io/org/algo:v1", false},
		{digestA, "oras://ghcr.io/org/algo", true},
		{digestB, "oras://ghcr.io/org/algo", true}, // the file
		{digestB, "oras://ghcr.io/org/algo@" + digestA, true},

		{"sif:.*", "sif:tools/algo", true},
		{"^sif:tools/.*$", "sif:tools/algo", true},
		{"(?i)^sif:TOOLS/.*$", "sif:tools/algo", true},
		{"^(sif:a|sif:b)$", "sif:b", true},
		{"^(?:sif:a|sif:b)$", "sif:c", false},
		{"sif:algo(@" + digestA + ")?", "sif:algo", true},
		{"sif:algo(@" + digestB + ")?", "sif:algo", false},
		{`^oras://ghcr\.io/org/.*`, "oras://ghcr.io/org/algo:v1", true},
		{`^oras://ghcr\.io/org/algo:v[0-9]+`, "oras://ghcr.io/org/algo:v12", true},
		{`^oras://ghcr\.io/org/algo:v[0-9]+`, "oras://ghcr.io/org/algo:latest", false},

		// Rules for registries allow no SIF image ...
		{".*", "sif:a", false},
		{".*", "oras://ghcr.io/org/algo", false},
		{`.*/sif:.*`, "oras://ghcr.io/org/sif:v1", false},
		{`.*ghcr\.io/org/.*`, "oras://ghcr.io/org/algo", false},
		{"ghcr.io/org/algo", "oras://ghcr.io/org/algo", false},
		{"sif", "sif:latest", false},
		{"docker.io/library/sif:a", "sif:a", false},
		{"algo", "sif:algo", false},
		{"(.*:)?algo", "sif:algo", false},
		// ... and rules for SIF images none of a registry, nor of the other kind.
		{"sif:.*", "docker.io/library/sif:v1", false},
		{"sif:.*", "sif", false},
		{"sif:v1", "docker.io/library/sif:v1", false},
		{"sif:.*", "oras://ghcr.io/org/algo", false},
		{"sif:x|.*", "ghcr.io/org/algo", false},
		{"sif:x|.*", "oras://ghcr.io/org/algo", false},
		{"oras://.*", "sif:a", false},
		{"oras://.*", "ghcr.io/org/algo", false},
		{"oras://ghcr.io/org/algo", "ghcr.io/org/algo", false},
	} {
		p := compile(t, Config{AllowedAlgorithms: []string{c.rule}})
		r := Request{Image: c.image, Digest: digestA}
		if strings.HasPrefix(c.image, "oras:") {
			r.File = digestB
		}
		d := p.Check(r)
		if d.Allowed != c.want {
			t.Errorf("rule %q, image %q: %+v", c.rule, c.image, d)
		}
		if d.Allowed && !p.Possible(r).Allowed {
			t.Errorf("rule %q, image %q: allowed, yet called impossible", c.rule, c.image)
		}
	}
	for _, mixed := range []string{`ghcr\.io/org/a|sif:b`, `(ghcr\.io/org/a|oras://ghcr.io/b)`, `(ghcr\.io/.*)|(?:sif:b)`} {
		if _, err := New(Config{AllowedAlgorithms: []string{mixed}}); err == nil || !strings.Contains(err.Error(), "two entries") {
			t.Errorf("%q: %v", mixed, err)
		}
	}
}

func TestASIFImageOfARegistryNeedsTheDigestOfItsFile(t *testing.T) {
	p := compile(t, Config{AllowedAlgorithms: []string{digestB}})
	if d := p.Check(Request{Image: "oras://ghcr.io/org/algo", Digest: digestA}); d.Allowed {
		t.Errorf("allowed without it: %+v", d)
	}
	if d := p.Check(Request{Image: "oras://ghcr.io/org/algo", Digest: digestA, File: "sha256:x"}); d.Allowed {
		t.Errorf("allowed with something else: %+v", d)
	}
	// By a digest alone it cannot be told before the look-up, even when the task names the artifact's.
	if d := p.Possible(Request{Image: "oras://ghcr.io/org/algo@" + digestA}); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

func TestAnImageThatNoDigestCouldAllowIsRefusedBeforeTheLookUp(t *testing.T) {
	p := compile(t, Config{AllowedAlgorithms: []string{"ghcr.io/org/algo@" + digestA, `^quay\.io/x/y$`, "ghcr.io/org/b:v1"}})
	for image, want := range map[string]bool{
		"ghcr.io/org/algo:v1": true, "quay.io/x/y": true, "ghcr.io/org/b:other": true,
		"10.0.0.5:8080/x": false, "ghcr.io/org/c": false, "ghcr.io/org/algo@" + digestB: false,
	} {
		if d := p.Possible(Request{Image: image}); d.Allowed != want {
			t.Errorf("%s: %+v, want %v", image, d, want)
		}
	}
}

func TestAnotherTagOfTheSameImageIsAllowedByItsDigest(t *testing.T) {
	p := compile(t, Config{AllowedAlgorithms: []string{"ghcr.io/org/algo:v1"}})
	asked := ""
	find := func(digest string, err error) func(string) (string, error) {
		return func(ref string) (string, error) { asked = ref; return digest, err }
	}
	r := Request{Image: "ghcr.io/org/algo@" + digestA, Digest: digestA, DigestOf: find(digestA, nil)}
	if d := p.Check(r); !d.Allowed || asked != "ghcr.io/org/algo:v1" {
		t.Errorf("same digest: %+v after asking for %q", d, asked)
	}
	r.DigestOf = find(digestB, nil)
	if d := p.Check(r); d.Allowed {
		t.Errorf("other digest: %+v", d)
	}
	r.DigestOf = find("", errors.New("registry away"))
	if d := p.Check(r); d.Allowed || !strings.Contains(d.Reason, "registry away") {
		t.Errorf("failed look-up: %+v", d)
	}
	r.DigestOf = nil
	if d := p.Check(r); d.Allowed {
		t.Errorf("no look-up: %+v", d)
	}
}

func TestADecisionNeedsAMatchingDigest(t *testing.T) {
	p := compile(t, Config{})
	for name, r := range map[string]Request{
		"none":         {Image: "python"},
		"not a digest": {Image: "python", Digest: "latest"},
		"another one":  {Image: "python@" + digestB, Digest: digestA},
		"bad image":    {Image: "FOO/bar", Digest: digestA},
	} {
		if d := p.Check(r); d.Allowed {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := p.Check(Request{Image: "python", Digest: digestA}); !d.Allowed {
		t.Errorf("without rules: %+v", d)
	}
}

func TestBasicsFollowsItsOwnSwitch(t *testing.T) {
	list := []string{"ghcr.io/org/algo"}
	for _, c := range []struct {
		name  string
		rules []string
		allow *bool
		image string
		want  bool
	}{
		{"off, no rules", nil, ptr(false), BasicsImage, false},
		{"off, even if listed", []string{BasicsImage}, ptr(false), BasicsImage + ":latest", false},
		{"off does not concern others", nil, ptr(false), "python", true},
		{"on beside rules", list, ptr(true), BasicsImage + ":1", true},
		{"on is no prefix", list, ptr(true), BasicsImage + "-evil", false},
		{"on is no other repository", list, ptr(true), "evil.io/algorithms/basics", false},
		{"unset obeys the rules", list, nil, BasicsImage, false},
		{"unset, no rules", nil, nil, BasicsImage, true},
	} {
		p := compile(t, Config{AllowedAlgorithms: c.rules, AllowBasics: c.allow})
		if d := p.Check(Request{Image: c.image, Digest: digestA}); d.Allowed != c.want {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	p := compile(t, Config{AllowBasics: ptr(true), AllowedUsers: []string{"7"}})
	if d := p.Check(Request{Image: BasicsImage, Digest: digestA, UserID: 8}); d.Allowed {
		t.Errorf("basics must not bypass allowed_users: %+v", d)
	}
}

func TestSendersAreUsersOrOrganizations(t *testing.T) {
	p := compile(t, Config{AllowedUsers: []string{"2", "alice"}, AllowedOrganizations: []string{"6", "Root", "9"}})
	name := func(n string, err error) func() (string, error) {
		return func() (string, error) { return n, err }
	}
	for _, c := range []struct {
		what string
		r    Request
		want bool
	}{
		{"user id", Request{UserID: 2}, true},
		{"user name", Request{UserID: 3, UserName: "alice"}, true},
		{"organization id", Request{UserID: 3, OrganizationID: 6}, true},
		{"organization name", Request{UserID: 3, OrganizationID: 4, OrganizationName: name("Root", nil)}, true},
		{"names are exact", Request{UserID: 3, OrganizationID: 4, OrganizationName: name("root", nil)}, false},
		{"an organization called 9 is not number 9", Request{OrganizationID: 4, OrganizationName: name("9", nil)}, false},
		{"a user called 2 is not number 2", Request{UserID: 4, UserName: "2"}, false},
		{"nobody", Request{}, false},
		{"stranger", Request{UserID: 3, UserName: "bob", OrganizationID: 2, OrganizationName: name("Other", nil)}, false},
		{"name unknown", Request{OrganizationID: 4, OrganizationName: name("", nil)}, false},
		{"name look-up fails", Request{OrganizationID: 4, OrganizationName: name("Root", errors.New("server away"))}, false},
	} {
		c.r.Image, c.r.Digest = "python", digestA
		if d := p.Check(c.r); d.Allowed != c.want {
			t.Errorf("%s: %+v, want %v", c.what, d, c.want)
		}
	}
	zero := compile(t, Config{AllowedUsers: []string{"0"}, AllowedOrganizations: []string{"0"}})
	if d := zero.Check(Request{Image: "python", Digest: digestA}); d.Allowed {
		t.Errorf("an unknown sender matched id 0: %+v", d)
	}
}

func TestNamesAreLookedUpOnlyWhenTheyMatter(t *testing.T) {
	forbidden := func() (string, error) { t.Error("looked up"); return "", nil }
	for _, c := range []Config{{}, {AllowedOrganizations: []string{"6"}}, {AllowedUsers: []string{"1"}, AllowedOrganizations: []string{"Root"}}} {
		compile(t, c).Check(Request{Image: "python", Digest: digestA, UserID: 1, OrganizationName: forbidden})
	}
}

func TestAListWithABadEntryIsRefusedWhole(t *testing.T) {
	_, err := New(Config{AllowedAlgorithms: []string{"python", `(?!evil).*`, "Bad/Name", "", `a)|(b`}, AllowedUsers: []string{" 3"}, AllowedOrganizations: []string{""}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`(?!evil).*`, "Bad/Name", `""`, `a)|(b`, "allowed_users", "allowed_organizations"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

// FuzzNothingIsAllowedWithoutAMatchingRule holds every decision against a plain restatement of the rules.
func FuzzNothingIsAllowedWithoutAMatchingRule(f *testing.F) {
	for _, s := range [][2]string{
		{`^ghcr\.io/org/algo`, "ghcr.io/org/algo-evil"}, {"python", "docker.io/library/python"}, {digestA, "x@" + digestA},
		{`ghcr\.io/org/algo(:v1)?`, "ghcr.io/org/algo:v2"}, {"ghcr.io/org/algo", "GHCR.IO/org/algo"}, {`(?i)x|y`, "y"}, {".*", "z"},
		{"sif:a", "sif:a"}, {"sif:.*", "docker.io/library/sif:1"}, {`^oras://ghcr\.io/org/.*`, "oras://ghcr.io/org/a:v1"}, {digestB, "oras://ghcr.io/a"}, {".*", "sif:a"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, rule, image string) {
		never, err := New(Config{AllowedAlgorithms: []string{"never.invalid/never/never@" + digestB}})
		if err != nil {
			t.Fatal(err)
		}
		r := Request{Image: image, Digest: digestA}
		if strings.HasPrefix(image, "oras://") {
			r.File = digestB
		}
		if d := never.Check(r); d.Allowed {
			t.Fatalf("%q allowed by nothing: %+v", image, d)
		}
		p, err := New(Config{AllowedAlgorithms: []string{rule}})
		if err != nil {
			return
		}
		d := p.Check(r)
		if d.Allowed != permits(rule, image, digestA, digestB) {
			t.Fatalf("rule %q, image %q: %+v", rule, image, d)
		}
		if d.Allowed && !p.Possible(r).Allowed {
			t.Fatalf("rule %q, image %q: allowed, yet called impossible", rule, image)
		}
	})
}
