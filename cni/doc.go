// Package cni is the network of a sandbox, seen from both of its sides.
//
// One side runs inside the container runtime: the CNI plugin "v6node"
// (PluginMain) gives every sandbox a loopback interface and an eth0 that leads
// nowhere, and the installer (Install, Uninstall, Inspect) puts that plugin
// and its configuration where a runtime looks for them.
//
// The other side runs inside the node: OpenNetns takes hold of a sandbox's
// network namespace, Verify reads it back and refuses anything that is not
// exactly what the plugin makes, and Listen opens the sockets by which, and by
// which alone, an algorithm can reach something outside its sandbox.
//
// What may not enter: knowledge of runs, servers or container runtimes, packet
// filter rules (egress is denied because there is no way out, not because a
// rule forbids it), and state of any kind. The package imports nothing else of
// this module, so that the plugin can be linked into a program small enough to
// be started twice for each sandbox.
package cni
