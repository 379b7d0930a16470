package check

import (
	"os"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
)

// Options say what is looked at.
type Options struct {
	// Config of the node, nil for none: then the machine and the runtime are all.
	Config *config.Config
	// File is where Config comes from, Warnings what it gave rise to, and
	// Invalid why there is no Config.
	File     string
	Warnings []config.Warning
	Invalid  error
	// Endpoint of the runtime (unix:///path); "" for none to speak to.
	Endpoint string
	Handler  string
	// Managed: the runtime is, or would be, the node's own containerd. Cannot
	// says why it could not be started.
	Managed bool
	Cannot  error
	// StateDir is where a node without Config would keep its state.
	StateDir string
	// Access is how the node reaches registries.
	Access *image.Access
	// Version goes into the User-Agent.
	Version string
}

// Groups of results, in the order in which they are shown.
const (
	groupMachine    = "machine"
	groupConfig     = "configuration"
	groupRuntime    = "runtime"
	groupStorage    = "storage"
	groupServer     = "server"
	groupRegistries = "registries"
	groupDatabases  = "databases"
	groupConnects   = "connections"
)

// Server is whether the node could log in at its server, and its key fits there.
func (o Options) Server() Check { return Check{Group: groupServer, Name: "address", Look: o.server} }

// Databases are the checks of the node's databases.
func (o Options) Databases() []Check {
	var out []Check
	for _, d := range o.Config.Databases {
		out = append(out, Check{Group: groupDatabases, Name: d.Label, Look: database(d, o.Config.Reachable()...)})
	}
	return out
}

// Doctor is every check that the options allow.
func Doctor(o Options) []Check {
	if o.Config != nil {
		o.StateDir = o.Config.StateDir
	}
	rootless := os.Geteuid() != 0
	m := machine{root: "/", rootless: rootless}
	checks := []Check{
		{Group: groupMachine, Name: "kernel", Look: m.kernel},
		{Group: groupMachine, Name: "privileges", Look: m.privileges},
		{Group: groupMachine, Name: "control groups", Look: o.cgroups(m)},
		{Group: groupMachine, Name: "namespaces", Look: m.namespaces},
		{Group: groupMachine, Name: "seccomp", Look: m.seccomp},
		{Group: groupMachine, Name: "AppArmor", Look: m.appArmor},
		{Group: groupMachine, Name: "kernel settings", Look: m.settings},
		{Group: groupMachine, Name: "open files", Look: openFiles},
	}
	if rootless {
		checks = append(checks, Check{Group: groupMachine, Name: "subordinate ids", Look: subordinate})
	}
	if o.Managed {
		checks = append(checks, Check{Group: groupMachine, Name: "overlayfs", Look: overlay{dir: o.StateDir, rootless: rootless}.look})
	}
	if o.File != "" {
		checks = append(checks, Check{Group: groupConfig, Name: "file", Look: o.configuration})
	}
	if o.Config != nil {
		checks = append(checks, Check{Group: groupConfig, Name: "limits", Look: o.limits})
		if len(o.Config.SIF.Directories)+len(o.Config.SIF.Keys) > 0 {
			checks = append(checks, Check{Group: groupConfig, Name: "SIF images", Look: o.sif})
		}
		if len(o.Config.Policies.SigningKeys) > 0 {
			checks = append(checks, Check{Group: groupConfig, Name: "policies.signatures.keys", Look: o.signing})
		}
		if o.Config.Encryption.Enabled {
			checks = append(checks, Check{Group: groupConfig, Name: "encryption.private_key", Look: o.privateKey})
		}
		if o.usesDevices() {
			checks = append(checks, Check{Group: groupConfig, Name: "devices", Look: o.devices})
		}
		checks = append(checks, Check{Group: groupConfig, Name: "listening", Look: o.listening})
	}
	switch {
	case o.Endpoint == "":
		checks = append(checks, Check{Group: groupRuntime, Name: "endpoint", Look: o.noRuntime})
	case o.Managed:
		checks = append(checks, Runtime(o.Endpoint, o.Handler), Check{Group: groupRuntime, Name: "bundle", Look: o.bundle})
	default:
		checks = append(checks, Runtime(o.Endpoint, o.Handler),
			Check{Group: groupRuntime, Name: "kubelet", Look: o.kubelet},
			Check{Group: groupRuntime, Name: "network", Look: o.network},
			Check{Group: groupStorage, Name: "image store", Look: o.imageStore})
	}
	if o.Config == nil {
		return checks
	}
	checks = append(checks, Check{Group: groupStorage, Name: "state directory", Look: o.storage}, o.Server())
	if o.Access != nil {
		checks = append(checks, Check{Group: groupRegistries, Name: "logins", Look: o.loginFiles}, Check{Group: groupRegistries, Name: "mirrors", Look: o.mirrors})
	}
	for _, r := range o.Config.Registries {
		checks = append(checks, Check{Group: groupRegistries, Name: r.Registry, Look: o.registry(r)})
	}
	checks = append(checks, o.Databases()...)
	for _, s := range o.Config.Services {
		checks = append(checks, Check{Group: groupConnects, Name: s.At.String(), Look: service(s)})
	}
	if !o.Config.Whitelist.Rules.Empty() || len(o.Config.Whitelist.Some) > 0 {
		checks = append(checks, Check{Group: groupConnects, Name: "whitelist", Look: o.whitelist})
	}
	for _, t := range o.Config.Tunnels {
		checks = append(checks, Check{Group: groupConnects, Name: t.At.String(), Look: sshTunnel(t)})
	}
	return checks
}
