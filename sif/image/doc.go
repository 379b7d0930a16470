// Package image opens SIF files and converts them to OCI images.
//
// Two kinds are read: native SIF, whose root file system is one squashfs partition,
// and OCI-SIF, an OCI index whose layers are squashfs images. What cannot run as an
// ordinary OCI image (encrypted or ext3 partitions, overlays, other architectures) is
// refused by name.
//
// A [Source] is a file that cannot change unnoticed: what is verified and what is
// converted are the same bytes. The result of a conversion depends on nothing but
// these bytes, so that one SIF has the same manifest digest on every machine.
//
// A file is hostile until proven otherwise: header and descriptors are checked before
// the SIF library sees them, and everything that is read into memory has a limit.
// The package knows nothing of caches, registries, references and keys.
package image
