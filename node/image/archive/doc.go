// Package archive reads images out of files: what `docker save` writes
// (docker-archive), and a tar of an OCI image layout (oci-archive), both also
// compressed with gzip.
//
// Such a file is hostile input. Nothing of it is ever written to a path that it
// names; everything that is read is bounded in number and size; what has a digest
// is verified; and each layer is unpacked once, to nowhere, so that one that is not
// what the image's configuration says, or that unpacks to more than is allowed, is
// found at the import and not by a run.
//
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md and
// https://github.com/moby/moby/blob/master/image/spec/v1.2.md describe the formats.
package archive
