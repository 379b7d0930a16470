// Package hostport reads hosts and ports as people write them, strictly: what a
// resolver, a driver and this program could each read differently is refused.
package hostport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/v6node/v6node/internal/units"
)

// Pair is a host and a port.
type Pair struct {
	// Host is a name in lower case, or an address in its usual form, an IPv6
	// one without brackets.
	Host string
	Port int
}

// Parse reads host:port and [IPv6]:port.
func Parse(text string) (Pair, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return Pair{}, fmt.Errorf("%q is not a host and a port; write it as db.example.org:5432", units.Clip(text))
	}
	if strings.Contains(host, ":") != strings.HasPrefix(text, "[") {
		return Pair{}, fmt.Errorf("%q is not a host and a port; only an IPv6 address stands in brackets", units.Clip(text))
	}
	return Of(host, port)
}

// Of reads a host and a port that stand apart.
func Of(host, port string) (Pair, error) {
	h, err := Host(host)
	if err != nil {
		return Pair{}, err
	}
	n, err := Port(port)
	return Pair{Host: h, Port: n}, err
}

// Port reads a port, 1 to 65535, in plain decimal digits.
func Port(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '0' {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", units.Clip(text))
	}
	return int(n), nil
}

// Host reads a name or an address.
func Host(text string) (string, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		switch {
		case a.Zone() != "":
			return "", fmt.Errorf("%q has a zone, which means something on one machine only; write an address without one", units.Clip(text))
		case a.Is4In6():
			return "", fmt.Errorf("%q is an IPv4 address in IPv6's clothes; write %s", units.Clip(text), a.Unmap())
		}
		return a.String(), nil
	}
	return Name(text)
}

// Name reads a host name: letters, digits, - and _, in labels between dots. A
// name that some programs take for a number, and so for an address, is refused.
func Name(text string) (string, error) {
	name := strings.ToLower(text)
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("%q is not a host name: %w", units.Clip(text), err)
	}
	return name, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > 253:
		return errors.New("it has more than 253 characters")
	case strings.HasSuffix(name, "."):
		return errors.New("leave out the dot at its end")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return errors.New("between its dots there are 1 to 63 characters")
		}
		if l[0] == '-' || l[len(l)-1] == '-' {
			return errors.New("no part of it begins or ends with -")
		}
		for _, c := range []byte(l) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return errors.New("it has letters without accents, digits, -, _ and dots only; write other letters in their xn-- form")
			}
		}
	}
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return errors.New("it ends in a number, so that some programs take it for an address; write the address with four numbers")
	}
	return nil
}

// Address returns the host where it is an address.
func (p Pair) Address() (netip.Addr, bool) {
	a, err := netip.ParseAddr(p.Host)
	return a, err == nil
}

// String is host:port, as net.Dial takes it.
func (p Pair) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }
