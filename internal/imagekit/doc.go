// Package imagekit makes small OCI images out of static binaries, and serves them
// from a registry inside the process, on loopback. The demo, the benchmarks and the
// integration tests get their algorithm images from it: no Docker, no network, no
// image that anybody must push somewhere first.
//
// An image depends on its Spec only: the same binary and settings give the same
// digest on every machine and day.
//
// What may not enter: clients of other registries (node/image has that), runtimes,
// and anything of vantage6.
package imagekit
