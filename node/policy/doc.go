// Package policy decides which tasks this node runs: by image, by user and by organization.
//
// It is pure: no network, no files, no clock. What a decision needs to know about the world (the digest an
// image resolved to, the name of an organization) comes with the request. A rule that cannot be evaluated
// never allows. Only internal helpers and node/image/imageref may be imported.
package policy
