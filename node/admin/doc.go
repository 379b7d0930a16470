// Package admin is how an administrator sees and steers a living node: the
// Station that the node offers, and its protocol over a unix socket, with
// server and client. The client is a Station too.
//
// The protocol is HTTP with JSON on STATE_DIR/admin.sock, for the user who runs
// the node and for root. Streams are JSON lines: items, then one line that
// says whether the stream ended well. Both sides name the protocol's version
// and refuse another. The types here are that protocol: a change that an older
// program would misread raises Protocol.
//
// What may not enter: anything that knows how a node works inside. The package
// imports no other package of the node, and nothing that prints.
package admin
