// Package kubelet finds out whether a kubelet uses a container runtime. It and
// a node cannot share one: a kubelet removes every pod that it does not know,
// and there is nothing by which a node could keep its sandboxes from it.
//
// Three signs count: a living pod that carries a kubelet's labels and none of
// v6node's; a kubelet's process that is connected to the runtime's socket; and
// one whose command line or configuration names that socket.
package kubelet
