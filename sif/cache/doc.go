// Package cache keeps what conversions and downloads have made: for each SIF file, by
// its SHA-256, the manifest and configuration of the OCI image, its layers as long as
// they are wanted, and files that came out of registries.
//
//	DIR/images/SHA256/record.json   what the file was converted to
//	DIR/images/SHA256/layer-N       a layer
//	DIR/downloads/SHA256/file       a SIF file out of a registry
//	DIR/downloads/SHA256/part       one that is still arriving
//	DIR/*/SHA256/lock               locked by who uses it (shared) or removes it (alone)
//	DIR/*/SHA256/turn/lock          locked by who makes something in it
//	DIR/files/...                   which digest a file had when it was last read
//
// Several processes may use one directory. What is being made has a temporary name and
// gets its own by rename, so that a crash leaves nothing that looks complete. When
// there is more than allowed, what was not used for the longest time goes, but never
// what someone has locked. The package knows nothing of SIF and of OCI.
package cache
