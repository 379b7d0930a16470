package egress

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/v6node/v6node/internal/hostport"
)

func compile(t testing.TB, r Rules) *List {
	t.Helper()
	l, err := Compile(r)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func pair(t testing.TB, text string) hostport.Pair {
	t.Helper()
	p, err := hostport.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var sample = Rules{
	Domains: []string{"Example.org", ".wide.org", "*.below.org"}, IPs: []string{"8.8.8.8", "10.1.0.0/16", "2001:db8:5::/48"}, Ports: []int{443, 8080},
	Pairs: []string{"api.pair.org:9000", "10.9.9.9:7", "example.org:22"},
}

func TestWhatTheAlgorithmMayName(t *testing.T) {
	l := compile(t, sample)
	for _, text := range []string{
		"example.org:443", "EXAMPLE.org:8080", "example.org:22", "wide.org:443", "a.wide.org:443", "a.b.wide.org:8080", "a.below.org:443",
		"8.8.8.8:443", "10.1.255.1:8080", "[2001:db8:5::7]:443", "api.pair.org:9000", "10.9.9.9:7",
	} {
		if err := l.Allows(pair(t, text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		"example.org:80", "example.org:23", "a.example.org:443", "notexample.org:443", "example.org.evil.com:443", "xwide.org:443", "below.org:443",
		"8.8.8.9:443", "8.8.8.8:53", "10.2.0.1:443", "10.9.9.9:443", "10.9.9.9:8", "api.pair.org:443", "[2001:db8:6::7]:443", "127.0.0.1:443", "localhost:443",
	} {
		if err := l.Allows(pair(t, text)); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", text, err)
		}
	}
	usual := compile(t, Rules{Domains: []string{"example.org"}})
	for text, ok := range map[string]bool{"example.org:80": true, "example.org:443": true, "example.org:22": false} {
		if (usual.Allows(pair(t, text)) == nil) != ok {
			t.Errorf("without ports: %s", text)
		}
	}
	nothing := compile(t, Rules{})
	if nothing.Allows(pair(t, "example.org:443")) == nil || !(Rules{Ports: []int{1}}).Empty() || sample.Empty() {
		t.Error("no rules allow something")
	}
}

func TestWhichHostsTheListConcerns(t *testing.T) {
	l := compile(t, sample)
	for host, want := range map[string]bool{
		"example.org": true, "org": true, "wide.org": true, "a.wide.org": true, "below.org": true, "x.below.org": true, "pair.org": true, "api.pair.org": true,
		"8.8.8.8": true, "10.1.2.3": true, "10.9.9.9": true, "10.9.9.8": false, "other.org": false, "a.example.org": false, "ample.org": false, "com": false,
	} {
		if got := l.Concerns(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

func TestWhereAListedNameMayLead(t *testing.T) {
	l := compile(t, sample)
	at := pair(t, "example.org:443")
	for text, ok := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "10.1.2.3": true, "::ffff:10.1.2.3": true, "2001:db8:5::1": true,
		"10.2.2.3": false, "10.9.9.9": false, "127.0.0.1": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false,
		"100.64.0.1": false, "0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "198.18.0.1": false, "192.0.2.1": false, "::": false, "::1": false,
		"fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd00:ec2::254": false, "ff02::1": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b:1::1": false, "2002:7f00:1::": false, "2001:0:1::1": false, "2001:db8:6::1": false, "fec0::1": false, "100::1": false,
		"172.15.0.1": true, "172.32.0.1": true, "11.0.0.1": true, "100.128.0.1": true,
	} {
		if err := l.Leads(at, netip.MustParseAddr(text)); (err == nil) != ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := l.Leads(pair(t, "example.org:22"), netip.MustParseAddr("10.1.2.3")); err == nil {
		t.Error("a private address is listed for ports 443 and 8080 only")
	}
	if err := l.Leads(pair(t, "api.pair.org:7"), netip.MustParseAddr("10.9.9.9")); err != nil {
		t.Errorf("a private address with that port is listed: %v", err)
	}
}

func TestRulesThatAreNone(t *testing.T) {
	for _, r := range []Rules{
		{Domains: []string{""}}, {Domains: []string{"."}}, {Domains: []string{"*"}}, {Domains: []string{"*."}}, {Domains: []string{"a*.org"}}, {Domains: []string{"..org"}},
		{Domains: []string{"https://example.org"}}, {Domains: []string{"example.org:443"}}, {Domains: []string{"example.org/x"}}, {Domains: []string{"10.0.0.1"}},
		{Domains: []string{".10.0.0.1"}}, {Domains: []string{"127.1"}}, {Domains: []string{"example.org."}}, {Domains: []string{"*.*.org"}},
		{IPs: []string{"example.org"}}, {IPs: []string{"10.0.0.1/8"}}, {IPs: []string{"10.0.0.0/33"}}, {IPs: []string{"fe80::1%eth0"}}, {IPs: []string{"::ffff:10.0.0.1"}}, {IPs: []string{"10.0.0"}},
		{Pairs: []string{"example.org"}}, {Pairs: []string{"*.example.org:1"}}, {Pairs: []string{"example.org:0"}},
	} {
		if _, err := Compile(r); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// FuzzRules: what is accepted allows itself, and never a name that only looks
// like it.
func FuzzRules(f *testing.F) {
	for _, s := range []string{"example.org", ".example.org", "*.example.org", "10.0.0.0/8", "a_b.c"} {
		f.Add(s, "example.org")
	}
	f.Fuzz(func(t *testing.T, rule, host string) {
		l, err := Compile(Rules{Domains: []string{rule}})
		if err != nil {
			return
		}
		name, err := hostport.Name(host)
		if err != nil {
			return
		}
		base := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(rule, "*"), "."))
		want := name == base && !strings.HasPrefix(rule, "*") || strings.HasPrefix(strings.TrimPrefix(rule, "*"), ".") && strings.HasSuffix(name, "."+base)
		if got := l.Allows(hostport.Pair{Host: name, Port: 443}) == nil; got != want {
			t.Fatalf("%q allows %q: %v", rule, name, got)
		}
		if l.Allows(hostport.Pair{Host: "x" + base, Port: 443}) == nil || l.Allows(hostport.Pair{Host: base + ".evil.example", Port: 443}) == nil && !strings.HasSuffix("evil.example", base) {
			t.Fatalf("%q allows a name that only looks like it", rule)
		}
	})
}
