// Package layout writes converted images as files: an OCI image layout in a directory, or
// in one tar file, as skopeo, podman and ctr read them.
//
// Layers go straight to where they belong: there is no second copy of one, neither
// before nor after. What is interrupted leaves nothing that looks complete. Nothing of
// SIF may enter; the package gets an [Image] that can write its layers.
package layout
