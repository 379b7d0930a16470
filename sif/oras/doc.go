// Package oras fetches SIF files that lie in OCI registries, as apptainer push puts
// them there: an artifact with one layer of the type
// application/vnd.sylabs.sif.layer.v1.sif.
//
// A download that was interrupted goes on where it stopped. Every byte is verified
// against the layer's digest, and the manifest against its own. The package decides
// nothing about where files are kept, and knows no credentials but those it is given.
package oras
