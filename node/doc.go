// Package node is the vantage6 node itself: it holds a session with the
// server, takes each open run through its life (policy, image, sandbox,
// algorithm, result) and keeps the ledger that makes this survive a crash.
//
// Three sources of truth are compared: the ledger for what this node has
// begun, the server's list of open runs for what is to be done, the runtime's
// list of sandboxes for what is alive. Events of the server's socket only make
// the comparison happen sooner.
//
// The package starts nothing itself: package engine does, and packages runtime,
// cni and proxy know nothing of the node.
package node
