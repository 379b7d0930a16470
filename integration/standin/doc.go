// Package standin is a stand-in for a vantage6 v4 server, held in memory but for
// its blobs, which are files. The
// end-to-end tests, the benchmarks and `v6node demo` use it in place of a real
// one.
//
// It is as strict as a recorded server of version 4.14, also where that server
// is odd: a PATCH of a run overwrites instead of merging, timestamps must carry
// one to six fractional digits, a socket with a bad token is accepted and then
// stays silent, lists come in pages of ten. A node that works here has met the
// traps that it meets in the field.
//
// Besides the protocol it offers what tests need: a researcher's side over real
// HTTP (Researcher), an observer's side without polling (WaitRun, RunRecord,
// Requests, NodeEvents) and fault injection (Fault, FreezeSockets, Stop and
// Start, ExpireTokens, ...).
//
// What may not enter: anything of the node. The package imports the end-to-end
// encryption, because a researcher encrypts, and the Socket.IO framing; it knows
// nothing of runtimes, sandboxes or the node's own state.
//
// Numbers of different kinds (organizations, collaborations, nodes, tasks, runs)
// start at different values, so that a mix-up of two kinds shows in a test.
package standin
