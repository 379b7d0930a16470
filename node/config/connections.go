package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/node/policy"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/proxy/egress"
	"github.com/v6node/v6node/proxy/tunnel"
)

// connections reads what runs can connect to besides databases. It comes after these.
func (d *decoder) connections(s *section, c *Config) {
	d.whitelist(s, c)
	d.services(s, c)
	d.tunnels(s, c)
	d.checkPlaces(s, c)
}

func (d *decoder) whitelist(s *section, c *Config) {
	v, line := s.get("whitelist")
	w := d.section(v, "whitelist")
	defer w.done()
	rules := &c.Whitelist.Rules
	rules.Domains = d.listed(w, "domains", egress.CheckDomain)
	for _, name := range rules.Domains {
		if name == dockerHost {
			d.warn(line, "whitelist.domains", "whitelist.domains: %s is Docker's name for this machine and means nothing here; write a service with its address, 127.0.0.1:PORT, under services", dockerHost)
		}
	}
	rules.IPs = d.listed(w, "ips", func(text string) error { _, err := egress.ParsePrefix(text); return err })
	for _, text := range d.listed(w, "ports", func(text string) error { _, err := hostport.Port(text); return err }) {
		n, _ := hostport.Port(text) // checked
		rules.Ports = append(rules.Ports, n)
	}
	pairs, _ := w.get("pairs")
	switch {
	case pairs == nil:
		d.whitelistRule(nil, "whitelist.pairs[0]", c)
	case pairs.kind == list:
		for i, item := range pairs.items {
			if item.kind == scalar {
				d.whitelistPair(item, fmt.Sprintf("whitelist.pairs[%d]", i), &rules.Pairs)
			} else {
				d.whitelistRule(item, fmt.Sprintf("whitelist.pairs[%d]", i), c)
			}
		}
	default:
		w.wrong(pairs, "pairs", "a list of host:port, or of sections with to, image and organization")
	}
	if v != nil && !empty(v) && rules.Empty() && len(c.Whitelist.Some) == 0 && len(d.problems) == 0 {
		d.warn(line, "whitelist", "whitelist: it lists no domains, ips or pairs, so runs reach nothing by it")
	}
}

// listed reads a list of texts or numbers, each checked in its own line.
func (d *decoder) listed(s *section, key string, check func(string) error) []string {
	entries, _ := s.texts(key)
	var out []string
	for _, e := range entries {
		if err := check(e.text); err != nil {
			d.fail(e.line, s.child(key), "%s: %v", s.child(key), err)
			continue
		}
		out = append(out, e.text)
	}
	return out
}

func (d *decoder) whitelistPair(v *value, path string, to *[]string) {
	if _, err := hostport.Parse(v.text); err != nil {
		d.fail(v.line, path, "%s: %v", path, err)
		return
	}
	*to = append(*to, v.text)
}

// whitelistRule reads pairs for some runs; nil only makes its keys known.
func (d *decoder) whitelistRule(v *value, path string, c *Config) {
	r := d.section(v, path)
	defer r.done()
	before := len(d.problems)
	pairs := d.listed(r, "to", func(text string) error { _, err := hostport.Parse(text); return err })
	image, organization := "", ""
	r.text("image", &image)
	r.literal("organization", &organization)
	if v == nil || len(d.problems) > before {
		return
	}
	switch {
	case len(pairs) == 0:
		d.fail(v.line, r.child("to"), "%s is missing or empty; write the host and port that runs may reach, such as api.example.org:443", r.child("to"))
		return
	case image == "" && organization == "":
		d.fail(v.line, path, "%s: it names neither an image nor an organization; what is for every run is written as host:port alone", path)
		return
	}
	runs, err := policy.NewSelector(image, organization, 0)
	if err != nil {
		d.fail(v.line, path, "%s: %v", path, err)
		return
	}
	c.Whitelist.Some = append(c.Whitelist.Some, WhitelistRule{Runs: runs, Pairs: pairs})
}

// services reads name: target, and name:port: target.
func (d *decoder) services(s *section, c *Config) {
	v, line := s.get("services")
	if v == nil {
		return
	}
	if v.kind != mapping {
		d.fail(line, "services", "services must be a section of names and targets, such as pacs: 10.1.2.3:104")
		return
	}
	for _, f := range v.fields {
		key := "services." + clip(f.key)
		if f.val.kind != scalar {
			d.fail(f.line, key, "%s must be host:port or unix:///path, not %s", key, describe(f.val))
			continue
		}
		service, err := readService(f.key, f.val.text)
		if err != nil {
			d.fail(f.line, key, "%s: %v", key, err)
			continue
		}
		c.Services = append(c.Services, service)
	}
}

func readService(name, target string) (reach.Service, error) {
	var out reach.Service
	port := ""
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name, port = name[:i], name[i+1:]
	}
	host, err := hostport.Name(name)
	if err != nil {
		return out, err
	}
	if err := reach.CheckName(host); err != nil {
		return out, err
	}
	if path, ok := strings.CutPrefix(target, "unix://"); ok {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, "\n\r") {
			return out, fmt.Errorf("%q is not a socket; write unix:// and the whole path, such as unix:///run/pacs.sock", clip(target))
		}
		if port == "" {
			return out, fmt.Errorf("a socket has no port; write the port at which runs find it behind the name, such as %s:80", host)
		}
		out.Target = reach.Target{Kind: reach.Unix, Address: filepath.Clean(path)}
	} else {
		at, err := hostport.Parse(target)
		if err != nil {
			return out, err
		}
		if port == "" {
			port = strconv.Itoa(at.Port)
		}
		out.Target = reach.Target{Kind: reach.TCP, Address: at.String()}
	}
	out.At, err = hostport.Of(host, port)
	return out, err
}

// dockerHost is what the reference node's files call the machine that it runs on.
const dockerHost = "host.docker.internal"

func (d *decoder) tunnels(s *section, c *Config) {
	v, _ := s.get("ssh-tunnels")
	if v == nil {
		d.tunnel(nil, "ssh-tunnels[0]", c)
		return
	}
	if v.kind != list {
		s.wrong(v, "ssh-tunnels", "a list of tunnels (hostname, ssh, tunnel)")
		return
	}
	for i, item := range v.items {
		d.tunnel(item, fmt.Sprintf("ssh-tunnels[%d]", i), c)
	}
}

// tunnel reads one tunnel; nil only makes its keys known.
func (d *decoder) tunnel(v *value, path string, c *Config) {
	top := d.section(v, path)
	before := len(d.problems)
	inner := func(s *section, key string) *section {
		v, _ := s.get(key)
		return d.section(v, s.child(key))
	}
	ssh, way := inner(top, "ssh"), inner(top, "tunnel")
	identity, bind, dest := inner(ssh, "identity"), inner(way, "bind"), inner(way, "dest")

	var name, server, print, user, key, passphrase, far, ignored string
	top.text("hostname", &name)
	ssh.text("host", &server)
	ssh.text("fingerprint", &print)
	identity.literal("username", &user)
	identity.file("key", &key)
	identity.file("passphrase_file", &passphrase)
	dest.text("ip", &far)
	bind.text("ip", &ignored) // of the reference node's container
	sshPort, bindPort, destPort := int64(22), int64(0), int64(0)
	ssh.integer("port", &sshPort, 1, 65535)
	bind.integer("port", &bindPort, 1, 65535)
	dest.integer("port", &destPort, 1, 65535)
	for _, s := range []*section{top, ssh, way, identity, bind, dest} {
		s.done()
	}
	if v == nil || len(d.problems) > before {
		return
	}
	for _, m := range []struct {
		s       *section
		key     string
		have    bool
		meaning string
	}{
		{top, "hostname", name != "", "the name under which runs find the tunnel"},
		{ssh, "host", server != "", "the SSH server"},
		{ssh, "fingerprint", print != "", "that of the SSH server's key, as ssh-keygen -l prints it (SHA256:...); without it anybody on the way could be the server"},
		{identity, "username", user != "", "the user at the SSH server"},
		{identity, "key", key != "", "the file with that user's private key"},
		{bind, "port", bindPort != 0, "the port at which runs find the tunnel"},
		{dest, "ip", far != "", "the host behind the SSH server, such as 127.0.0.1"},
		{dest, "port", destPort != 0, "the port of the host behind the SSH server"},
	} {
		if !m.have {
			d.fail(v.line, m.s.child(m.key), "%s is missing; write %s", m.s.child(m.key), m.meaning)
		}
	}
	if len(d.problems) > before {
		return
	}
	if ignored != "" && ignored != "0.0.0.0" && ignored != "::" {
		at, _ := bind.get("ip")
		d.warn(at.line, bind.child("ip"), "%s: not used; a tunnel listens in the runs' sandboxes only", bind.child("ip"))
	}
	if server == dockerHost {
		d.warn(v.line, ssh.child("host"), "%s: %s is Docker's name for this machine; 127.0.0.1 is taken for it", ssh.child("host"), dockerHost)
		server = "127.0.0.1"
	}
	t := Tunnel{Config: tunnel.Config{User: user, KeyFile: key, PassphraseFile: passphrase}}
	read := func(s *section, key string, into *hostport.Pair, host string, port int64) {
		p, err := hostport.Of(host, strconv.FormatInt(port, 10))
		if err != nil {
			d.fail(v.line, s.child(key), "%s: %v", s.child(key), err)
		}
		*into = p
	}
	read(top, "hostname", &t.At, name, bindPort)
	read(ssh, "host", &t.Server, server, sshPort)
	read(dest, "ip", &t.Dest, far, destPort)
	known, err := tunnel.ParseHostKey(print)
	if err != nil {
		d.fail(v.line, ssh.child("fingerprint"), "%s: %v", ssh.child("fingerprint"), err)
	}
	if _, isAddress := t.At.Address(); isAddress {
		d.fail(v.line, top.child("hostname"), "%s: it is an address; write a name", top.child("hostname"))
	} else if err := reach.CheckName(t.At.Host); err != nil {
		d.fail(v.line, top.child("hostname"), "%s: %v", top.child("hostname"), err)
	}
	if len(d.problems) > before {
		return
	}
	t.Name, t.HostKey = t.At.String(), known
	c.Tunnels = append(c.Tunnels, t)
}

// checkPlaces refuses names that would mean two things.
func (d *decoder) checkPlaces(s *section, c *Config) {
	all := c.Reachable()
	for i, one := range all {
		if slices.ContainsFunc(all[:i], func(o reach.Service) bool { return o.At == one.At }) {
			key := "services"
			if one.Target.Kind == reach.Tunnel {
				key = "ssh-tunnels"
			}
			_, line := s.get(key)
			d.fail(line, key, "%s: %s is given twice among services and ssh-tunnels; choose another name or port for one", key, one.At)
		}
	}
	_, line := s.get("databases")
	for _, db := range c.Databases {
		for _, at := range db.Endpoints {
			named := slices.ContainsFunc(all, func(o reach.Service) bool { return o.At.Host == at.Host })
			exact := slices.ContainsFunc(all, func(o reach.Service) bool { return o.At == at })
			if at.Host == dockerHost && !named {
				d.warn(line, "databases", "databases: the uri of %q leads to %s, Docker's name for this machine, which means nothing here; write under services %s: 127.0.0.1:%d", db.Label, dockerHost, at, at.Port)
			}
			if named && !exact {
				d.fail(line, "databases", "databases: the uri of %q leads to port %d of %s, which services or ssh-tunnels have with another port; correct one of them", db.Label, at.Port, at.Host)
			}
		}
	}
}
