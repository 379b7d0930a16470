// Package egress is the HTTP proxy through which an algorithm reaches what the
// administrator has listed, and nothing else.
//
// A host must be listed by the name that the algorithm uses; what is not listed is
// not even looked up, so that no question to a name server carries data out. The
// proxy itself resolves a listed name, once for each connection, looks at every
// address that it gets, and connects to what it has looked at: a name that leads
// into the private network, be it by mistake or because somebody makes it
// (DNS rebinding), is refused, unless that address is listed too.
package egress
