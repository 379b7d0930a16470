// Package layer turns a squashfs image into one OCI layer: an uncompressed tar whose
// bytes, and so whose digest, depend on nothing but the image.
//
// The tar is written by this package's own encoder, not by archive/tar, so that no
// release of Go changes digests that policies name:
//
//   - entries in the order of squashfs.FS.Walk, the root as "./", directories with
//     a slash at their end, everything else as a plain relative path;
//   - POSIX (ustar) headers; what does not fit one (long or non-ASCII names, ids
//     above 2097151, sizes from 8 GiB, extended attributes) in a PAX header before
//     it, whose records are sorted; no user or group names; whole seconds;
//   - the first path of an inode is the file, each later one a hard link to it;
//   - holes of sparse files are zeros in the tar, as the OCI image specification
//     wants it, but never zeros in memory;
//   - extended attributes as SCHILY.xattr records. trusted.overlay.* are left out:
//     the runtime's overlay mount would obey them instead of showing them;
//   - sockets are left out, because tar cannot say them; they are counted.
//
// Two zero blocks end the tar. The package knows squashfs and tar, and nothing of SIF,
// configurations or registries.
package layer
