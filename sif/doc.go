// Package sif runs SIF images (Singularity, Apptainer) on container runtimes that know
// only OCI: it finds them by reference, checks their signatures, converts them, and
// serves the result on loopback, from where a runtime pulls it as from any registry.
//
//	Resolve   what a reference means: a file, its digest, the name for policies
//	Ensure    signature checked, converted (or converted before), ready to be pulled
//	Release   the pull is over; what only it needed goes
//
// The digest of a SIF file is its identity: file, conversion, signature and cache all
// hang on it, and one file converts to the same OCI image everywhere. The package puts
// sif/image, signature, reference, oras, cache and registry together; runtimes, nodes and
// policies may not enter.
package sif
