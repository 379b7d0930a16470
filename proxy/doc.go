// Package proxy is what an algorithm can talk to: the vantage6 API of one run.
//
// An API serves the algorithm of one run on a listener that only this run
// reaches. It forwards to the vantage6 server, with the algorithm's own token,
// and does on the way what an algorithm must not be able to do: it encrypts the
// inputs of subtasks for the organizations they go to, and decrypts the results
// that come back. It holds the request for the status of an unfinished task
// until that changes.
//
// The algorithm is hostile: whatever it sends is limited in size, number and
// time, no request leaves the API's path on the server, and no token but this
// run's is accepted. The server is not trusted with more than it needs either:
// it is never followed to another host.
//
// Only what a run talks to may enter the package. It knows the vantage6 server,
// which no other room beside node does, and neither containers nor the node.
package proxy
