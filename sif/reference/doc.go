// Package reference understands how tasks name SIF images, and finds those that lie in
// directories.
//
//	sif:NAME[@sha256:DIGEST]                        a file in a configured directory
//	oras://REGISTRY/REPOSITORY[:TAG][@sha256:...]   an artifact in an OCI registry
//
// A name comes from whoever wrote the task. It can reach nothing but regular files
// inside the directories, whatever it contains and whatever links lie there. The digest
// of a sif: reference is that of the file; that of an oras:// reference is, as always
// with registries, that of the artifact's manifest.
package reference
