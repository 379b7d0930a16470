// Package signature decides whether a SIF image is signed by a key that is trusted.
//
// PGP signatures and DSSE envelopes are read, as Apptainer makes them. An image is
// accepted when each of its groups of objects, as a whole, has a valid signature by a
// trusted key: header, descriptors and content of every object, none missing and none
// added. Signatures by keys that are not trusted count for nothing and harm nothing.
// Signatures from before Singularity 3.6, which do not cover descriptors, count for
// nothing either.
//
// The package knows nothing of where images and keys come from.
package signature
