package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/internal/units"
)

// Rules are what a run may reach. The zero value allows nothing.
type Rules struct {
	// Domains are names: "example.org" is this one, ".example.org" it and all
	// below it, "*.example.org" only those below.
	Domains []string `json:"domains,omitempty"`
	// IPs are addresses and networks ("10.1.0.0/16"). They allow an address that
	// the algorithm names, and private addresses behind Domains and Pairs.
	IPs []string `json:"ips,omitempty"`
	// Ports hold for Domains and IPs; 80 and 443 when there are none.
	Ports []int `json:"ports,omitempty"`
	// Pairs are a host and a port, "example.org:8443".
	Pairs []string `json:"pairs,omitempty"`
}

// Empty tells whether nothing is allowed.
func (r Rules) Empty() bool { return len(r.Domains)+len(r.IPs)+len(r.Pairs) == 0 }

// usualPorts are those of HTTP and HTTPS.
var usualPorts = []int{80, 443}

// List is compiled Rules. It is immutable.
type List struct {
	names    map[string]bool // listed exactly
	suffixes []string        // ".example.org": all below
	prefixes []netip.Prefix
	ports    []int
	pairs    map[hostport.Pair]bool
}

// Compile reads rules. Its errors name the entry and say how to write it.
func Compile(r Rules) (*List, error) {
	l := &List{names: map[string]bool{}, ports: r.Ports, pairs: map[hostport.Pair]bool{}}
	if len(l.ports) == 0 {
		l.ports = usualPorts
	}
	for _, d := range r.Domains {
		if err := l.domain(d); err != nil {
			return nil, err
		}
	}
	for _, text := range r.IPs {
		p, err := ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		l.prefixes = append(l.prefixes, p)
	}
	for _, text := range r.Pairs {
		p, err := hostport.Parse(text)
		if err != nil {
			return nil, err
		}
		l.pairs[p] = true
	}
	return l, nil
}

// CheckDomain tells whether a text can be one of Domains.
func CheckDomain(text string) error {
	return (&List{names: map[string]bool{}}).domain(text)
}

func (l *List) domain(text string) error {
	rest, below := strings.CutPrefix(text, "*.")
	if !below {
		rest, below = strings.CutPrefix(text, ".")
	}
	if _, err := netip.ParseAddr(rest); err == nil {
		return fmt.Errorf("%q is an address; write it under ips", units.Clip(text))
	}
	name, err := hostport.Name(rest)
	if err != nil {
		return fmt.Errorf("%w; a domain is written example.org, with .example.org for all below it too", err)
	}
	if below {
		l.suffixes = append(l.suffixes, "."+name)
	}
	if !strings.HasPrefix(text, "*") {
		l.names[name] = true
	}
	return nil
}

// ParsePrefix reads an address, or a network with its length.
func ParsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network such as 10.1.0.0/16", units.Clip(text))
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its length; write %s", units.Clip(text), p.Masked())
	}
	return p, nil
}

// ErrRefused is wrapped by every refusal.
var ErrRefused = errors.New("not on the node's whitelist")

// Allows returns nil if the algorithm may name this host and port.
func (l *List) Allows(at hostport.Pair) error {
	if l.pairs[at] {
		return nil
	}
	listed := false
	if a, ok := at.Address(); ok {
		listed = l.contains(a)
	} else {
		listed = l.names[at.Host] || slices.ContainsFunc(l.suffixes, func(s string) bool { return strings.HasSuffix(at.Host, s) })
	}
	switch {
	case !listed:
		return fmt.Errorf("%s is %w", at, ErrRefused)
	case !slices.Contains(l.ports, at.Port):
		return fmt.Errorf("port %d of %s is %w", at.Port, at.Host, ErrRefused)
	}
	return nil
}

// Concerns tells whether something is allowed of a host, or of one whose name
// ends in its.
func (l *List) Concerns(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil && l.contains(a) {
		return true
	}
	below := func(name string) bool { return name == host || strings.HasSuffix(name, "."+host) }
	for name := range l.names {
		if below(name) {
			return true
		}
	}
	for p := range l.pairs {
		if below(p.Host) {
			return true
		}
	}
	return slices.ContainsFunc(l.suffixes, func(s string) bool { return below(s[1:]) || strings.HasSuffix(host, s) })
}

func (l *List) contains(a netip.Addr) bool {
	return slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Leads returns nil if a host and port that Allows has passed may lead to an
// address: a public one, or one that is listed itself.
func (l *List) Leads(at hostport.Pair, to netip.Addr) error {
	to = to.Unmap()
	if public(to) || l.pairs[hostport.Pair{Host: to.String(), Port: at.Port}] || l.contains(to) && slices.Contains(l.ports, at.Port) {
		return nil
	}
	return &insideError{host: at.Host, address: to}
}

// insideError is the refusal of an address. The algorithm is not told the address:
// how the site's network is made is none of its business.
type insideError struct {
	host    string
	address netip.Addr
}

func (e *insideError) Error() string {
	return fmt.Sprintf("%s leads to the address %s, which is not a public one and %v", e.host, e.address, ErrRefused)
}

func (e *insideError) told() string {
	return fmt.Sprintf("%s leads to an address that is not a public one and %v", e.host, ErrRefused)
}

func (e *insideError) Unwrap() error { return ErrRefused }

// closed are the networks that are not, or not surely, the public internet:
// IANA's registries of special addresses, and those in which an IPv4 address is
// wrapped that something on the way takes out again.
var closed = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)

// open6 is what IPv6 has given out to the public; closed6 is what of it is not.
var (
	open6   = netip.MustParsePrefix("2000::/3")
	closed6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3ffe::/16", "3fff::/20")
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func public(a netip.Addr) bool {
	in := func(p netip.Prefix) bool { return p.Contains(a) } // none contains one with a zone
	if a.Is4() {
		return !slices.ContainsFunc(closed, in)
	}
	return open6.Contains(a) && !slices.ContainsFunc(closed6, in)
}
