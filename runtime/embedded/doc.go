// Package embedded runs a containerd of v6node's own, for machines that have
// no CRI runtime or none that v6node may use.
//
// The containerd, its shim, runc and the pause program come from a bundle (see
// `make bundle`). The package writes their configuration after looking at what
// the host can do, starts containerd outside the node's own session, waits
// until its CRI API answers, starts it again when it dies, and finds it again
// when the node was restarted: containers live on in their shims whatever
// happens to the node or to containerd. The pause image is made here and put
// into containerd's store directly, so that starting a sandbox never needs a
// registry.
//
// Everything is kept below two directories, Root (images, containers'
// writable layers, containerd's database) and State (sockets, configuration,
// log). The system's containerd is never read, used or changed.
//
// What may not enter: knowledge of vantage6, of runs, or of the sandbox
// network; the caller passes the CNI configuration in as bytes. Sandboxes and
// containers are started through package runtime, on the endpoint that
// Containerd.Endpoint returns.
package embedded
