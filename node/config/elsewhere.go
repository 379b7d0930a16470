package config

import (
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/hostport"
)

// replacement is a key and what does its work.
type replacement struct{ key, instead string }

// replaced are the reference node's keys that mean nothing here, and what does their work.
var replaced = []replacement{
	{"images", "nothing replaces it, for no helper images are used"},
	{"alpine", "nothing replaces it, for no helper images are used"},
	{"vpn_subnet", "algorithms exchange data through the server, as subtasks, for there is no VPN between nodes"},
	{"node_extra_env", "set variables for the node's service (Environment= of systemd), for the node is no container"},
	{"node_extra_mounts", "name certificates in ca_file, for the node is no container and sees the machine's own files"},
	{"node_extra_hosts", "write names into the machine's /etc/hosts, for the node is no container"},
	{"debug", "use logging.level: debug"},
	{"directories", "use state_dir"},
}

// elsewhere answers the keys that have no section of their own.
func (d *decoder) elsewhere(s *section) {
	for _, r := range replaced {
		if _, line := s.get(r.key); line > 0 {
			d.warn(line, r.key, "%s: not used; %s", r.key, r.instead)
		}
	}
	if v, line := s.get("docker_services"); v != nil && !empty(v) {
		d.warn(line, "docker_services", "docker_services: not used; publish the port of each container on this machine and write it under services, such as %s: 127.0.0.1:PORT, for this node has no part in Docker's networks", firstKey(v))
	}
	v, line := s.get("algorithm_device_requests")
	g := d.section(v, "algorithm_device_requests")
	gpu := false
	if g.yesNo("gpu", &gpu); gpu {
		d.warn(line, "algorithm_device_requests", "algorithm_device_requests: not used; name devices in limits.devices, such as nvidia.com/gpu=all")
	}
	g.done()
	if slices.ContainsFunc(s.fields, func(f field) bool { return f.key == "node" && f.val.kind == mapping }) && !s.has("server_url") {
		d.fail(s.line, "node", "this looks like a values file of vantage6 5 (Helm); write the settings as for a version 4 node")
	}
}

// firstKey is a name of the mapping for an example.
func firstKey(v *value) string {
	if v.kind == mapping && len(v.fields) > 0 {
		if name, err := hostport.Name(v.fields[0].key); err == nil {
			return name
		}
	}
	return "NAME"
}

// empty reports whether a value holds nothing.
func empty(v *value) bool {
	switch v.kind {
	case list:
		return !slices.ContainsFunc(v.items, func(i *value) bool { return !empty(i) })
	case mapping:
		return !slices.ContainsFunc(v.fields, func(f field) bool { return !empty(f.val) })
	}
	return v.kind == null || strings.TrimSpace(v.text) == ""
}
