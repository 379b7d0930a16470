// Package runtime is the node's client of the Kubernetes Container Runtime
// Interface (CRI): the only way in which v6node starts, watches and stops
// anything.
//
// It holds the connection to one runtime (containerd, CRI-O, or any other that
// conforms), sandboxes, containers, images, events, the log files that the
// runtime writes, and the control group that bounds one run. Every security
// field that CRI knows is sent on every call; a caller cannot leave one out or
// weaken one, because the types of this package have no field for it.
//
// What may not enter: vantage6 servers, tasks and policies (package node), the
// contents of a sandbox's network (package cni), the conversion of images
// (package sif), and any way past CRI to start a process. Where the runtime is
// containerd its own API on the same socket may make something better (the
// progress of a pull), but nothing depends on it.
package runtime
