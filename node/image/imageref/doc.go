// Package imageref gives every spelling of an image reference its one canonical form.
//
// Policy, resolver and pull must agree on what an image is called, or a spelling that one of them reads
// differently gets around the policy. They all use this package. It does no I/O and knows nothing of
// registries, runtimes or policies; none of those may enter.
package imageref
