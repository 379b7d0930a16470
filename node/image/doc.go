// Package image finds out what an image reference means: which digest, whether it runs on this machine, and with
// which login its registry is asked; and brings the image into the runtime.
//
// There is a Source for each kind of image: Resolver for those of registries, SIF for SIF files. Resolving reads
// manifests, configurations and files, and fetches no layers. A reference is resolved once and from then on called by
// its digest, so that what was checked is what runs. The package may import the rooms runtime and sif, and imageref;
// policy, server and node may not enter.
package image
