package reach

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/proxy/egress"
)

// Kinds of Target.
const (
	TCP  = "tcp"  // Address is host:port, dialled from the machine's own network
	Unix = "unix" // Address is the path of a socket of this machine
	// Tunnel: Address is where the configuration has the tunnel, host:port.
	Tunnel = "tunnel"
)

// Target is a place outside the sandbox.
type Target struct {
	Kind    string `json:"kind"`
	Address string `json:"address"`
}

// String names it for the log.
func (t Target) String() string {
	if t.Kind == TCP {
		return t.Address
	}
	return t.Kind + ":" + t.Address
}

// Service is a target that runs find under a host and port that the
// configuration chose.
type Service struct {
	At     hostport.Pair
	Target Target
}

// Database is what the plan needs of one.
type Database struct {
	Label     string
	Endpoints []hostport.Pair
}

// Link is one listener in a sandbox and where it leads.
type Link struct {
	At     hostport.Pair  `json:"at"` // as the algorithm names it
	Listen netip.AddrPort `json:"listen"`
	Target Target         `json:"target"`
}

// Plan is all that one run can connect to besides the vantage6 API. It is kept
// beside the run's files, because a node that was restarted must open exactly
// this again: it holds no secret.
type Plan struct {
	Links []Link `json:"links,omitempty"`
	Web   *Web   `json:"web,omitempty"` // nil for a run for which nothing is whitelisted
}

// Web is the HTTP proxy for what is whitelisted.
type Web struct {
	Listen netip.AddrPort `json:"listen"`
	Rules  egress.Rules   `json:"rules"`
}

// Where the HTTP proxy is found: the port is that of the reference node's.
const (
	webName = "webproxy"
	webPort = 3128
)

// WebAt is how runs name the HTTP proxy.
var WebAt = hostport.Pair{Host: webName, Port: webPort}

// Reserved are names that mean something else in every sandbox.
var Reserved = []string{"proxyserver", webName}

// localhost is this machine, and in a sandbox what stands for it.
const localhost = "localhost"

// firstHost is the last number of the first loopback address that names get. The
// first two are localhost and the vantage6 API.
const firstHost = 3

// ProxyAddress is the address of the vantage6 API in a sandbox.
var ProxyAddress = netip.AddrFrom4([4]byte{127, 0, 0, 2})

// sandboxAddress is that of each sandbox's eth0 (docs/network.md).
var sandboxAddress = netip.AddrFrom4([4]byte{192, 0, 2, 2})

// Make plans the connections of a run: the databases that its task names, and
// those services to which no database of the node leads; a service that stands
// for a database is for the runs that ask for that. web is what is whitelisted
// for the run.
func Make(all []Database, requested []string, services []Service, web egress.Rules) (*Plan, error) {
	m := maker{hosts: map[string]netip.Addr{localhost: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	var wanted []Service
	of := func(at hostport.Pair) Service {
		for _, s := range services {
			if s.At == at {
				return s
			}
		}
		return Service{At: at, Target: Target{TCP, at.String()}}
	}
	for _, db := range all {
		if slices.Contains(requested, db.Label) {
			for _, at := range db.Endpoints {
				wanted = append(wanted, of(at))
			}
		}
	}
	for _, s := range services {
		if !slices.ContainsFunc(all, func(db Database) bool { return slices.Contains(db.Endpoints, s.At) }) {
			wanted = append(wanted, s)
		}
	}
	for _, s := range wanted { // before names get addresses
		if a, ok := s.At.Address(); ok {
			m.taken = append(m.taken, a)
		}
	}
	for _, s := range wanted {
		if err := m.link(s); err != nil {
			return nil, err
		}
	}
	if !web.Empty() {
		a, err := m.address(WebAt)
		if err != nil {
			return nil, err
		}
		m.plan.Web = &Web{Listen: netip.AddrPortFrom(a, webPort), Rules: web}
	}
	return &m.plan, nil
}

// maker collects a plan.
type maker struct {
	plan  Plan
	hosts map[string]netip.Addr
	taken []netip.Addr
}

func (m *maker) link(s Service) error {
	if slices.ContainsFunc(m.plan.Links, func(l Link) bool { return l.At == s.At }) {
		return nil // two databases on one server
	}
	a, err := m.address(s.At)
	if err != nil {
		return err
	}
	m.plan.Links = append(m.plan.Links, Link{At: s.At, Listen: netip.AddrPortFrom(a, uint16(s.At.Port)), Target: s.Target})
	return nil
}

// address is where a host is found in the sandbox.
func (m *maker) address(at hostport.Pair) (netip.Addr, error) {
	if a, ok := at.Address(); ok {
		return a, CheckAddress(a)
	}
	if a, ok := m.hosts[at.Host]; ok {
		return a, nil
	}
	for n := firstHost; n < 255; n++ {
		a := netip.AddrFrom4([4]byte{127, 0, 0, byte(n)})
		if !slices.Contains(m.taken, a) {
			m.taken = append(m.taken, a)
			m.hosts[at.Host] = a
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("the run would have more than 250 hosts to connect to; give it fewer databases and services")
}

// CheckAddress tells whether an address, and not a name, can be that of a
// database or service. Others than loopback ones are given to the sandbox's lo.
func CheckAddress(a netip.Addr) error {
	switch {
	case a == ProxyAddress:
		return fmt.Errorf("%s is the vantage6 API in each sandbox; name another address of this machine, or its name", a)
	case a == sandboxAddress:
		return fmt.Errorf("%s is the sandbox itself in each sandbox; write a name", a)
	case !a.IsLoopback() && !a.IsGlobalUnicast():
		return fmt.Errorf("%s is not the address of one machine; write its name", a)
	}
	return nil
}

// CheckName tells whether a name can be that of a database or service.
func CheckName(name string) error {
	if slices.Contains(Reserved, name) {
		return fmt.Errorf("%s means something else in each sandbox; choose another name", name)
	}
	return nil
}

// Check is CheckAddress or CheckName, whichever the host needs.
func Check(at hostport.Pair) error {
	if a, ok := at.Address(); ok {
		return CheckAddress(a)
	}
	return CheckName(at.Host)
}

// HostsFile is what the plan adds to the run's /etc/hosts.
func (p *Plan) HostsFile() string {
	var b strings.Builder
	var done []string
	for _, l := range p.Links {
		if _, ok := l.At.Address(); ok || l.At.Host == localhost || slices.Contains(done, l.At.Host) {
			continue
		}
		done = append(done, l.At.Host)
		fmt.Fprintf(&b, "%s\t%s\n", l.Listen.Addr(), l.At.Host)
	}
	if p.Web != nil {
		fmt.Fprintf(&b, "%s\t%s\n", p.Web.Listen.Addr(), webName)
	}
	return b.String()
}

// Variables are those by which programs find the HTTP proxy, and what they reach
// without it; none without one.
func (p *Plan) Variables() map[string]string {
	if p.Web == nil {
		return nil
	}
	direct := []string{localhost, "127.0.0.1", "::1"}
	direct = append(direct, Reserved...)
	list, err := egress.Compile(p.Web.Rules)
	for _, l := range p.Links {
		// Not every program understands a port here, so there is one only where
		// the same host is whitelisted too.
		host := l.At.Host
		if err == nil && list.Concerns(host) {
			host = l.At.String()
		}
		if !slices.Contains(direct, host) {
			direct = append(direct, host)
		}
	}
	out := map[string]string{}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		out[name] = "http://" + WebAt.String()
	}
	out["NO_PROXY"] = strings.Join(direct, ",")
	for _, name := range slices.Collect(maps.Keys(out)) {
		out[strings.ToLower(name)] = out[name]
	}
	return out
}

// Encode writes the plan for Decode.
func (p *Plan) Encode() ([]byte, error) { return json.Marshal(p) }

// Decode reads a plan back. No bytes are a plan without connections: that of a
// run from before there were any.
func Decode(b []byte) (*Plan, error) {
	p := new(Plan)
	if len(b) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("the list of the run's connections is damaged: %w", err)
	}
	return p, nil
}
