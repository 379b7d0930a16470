package cni

import "net/netip"

// The names under which a runtime finds our network.
const (
	// PluginName is the plugin's file name and the "type" in its configuration.
	PluginName = "v6node"
	// LoopbackName is the plugin that containerd asks for besides that of the
	// network, to bring up lo, unless its configuration has
	// use_internal_loopback = true. Ours does that too, and is installed under
	// this name as well where there is none.
	LoopbackName = "loopback"
	// NetworkName is the name of the network in the configuration list.
	NetworkName = "v6node"
	// ConfName is the configuration's file name. Runtimes take the file that
	// sorts first, bytewise.
	ConfName = "00-v6node.conflist"
)

// The directories where containerd and CRI-O look when nobody told them otherwise.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

const (
	// ifName is the name that runtimes give to a sandbox's first interface.
	ifName = "eth0"
	loName = "lo"
	// podAddress comes from TEST-NET-1 (RFC 5737), which is never routed, so
	// that it cannot be mistaken for a machine of the site. Every sandbox has
	// the same one: nothing but the sandbox itself ever sees it.
	podAddress = "192.0.2.2/32"
)

func podPrefix() netip.Prefix { return netip.MustParsePrefix(podAddress) }
