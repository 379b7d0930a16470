// Package userns lets a node run without root: it takes a process into a user
// and a mount namespace in which it may do what containers need, and keeps the
// two while the node is away.
//
// RootlessKit makes the namespaces, with the user's subordinate ids mapped by
// newuidmap and newgidmap, and keeps them: it is a process of its own session
// that outlives the node as the shims of running containers do, until End. The
// node is never its child. It replaces itself by nsenter and that by itself once
// more, at its first start and at every later one, so that it stays the same
// process for whoever started it: signals, exit code, terminal and journal need
// no help. The network stays the host's.
//
// For a user without subordinate ids the namespace has this user only, and
// unshare(1) makes it.
//
// What may not enter: knowledge of containers, runtimes and runs.
package userns
