// Package registry is the part of the OCI distribution protocol that a container
// runtime needs to pull an image: manifests by digest or tag, blobs by digest, GET and
// HEAD, with ranges. It lists nothing and changes nothing.
//
// It is meant for loopback. Because every user of a machine can reach loopback, it asks
// for a login, which CRI hands to the runtime with PullImage. It serves only the images
// that were added to it, and knows nothing of where they come from.
package registry
