// Package server is the vantage6 server as the node sees it: one interface, API, and its dialects.
// V4 speaks to servers of version 4.
//
// The room holds the session: login and renewal of tokens, the REST calls, the event socket with
// its reconnects, and the conversion between the wire and Go. What a run is, when it is started,
// retried or given up is decided by the node and may not enter here; neither may encryption:
// inputs and results pass through as the text that the server stores.
//
// The socket only wakes the node up. The list of open runs over REST is the truth, and Listen
// reminds its handler of that at every PollInterval, whether or not the socket is up.
package server
