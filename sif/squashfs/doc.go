// Package squashfs reads squashfs 4.0 images, the file systems inside SIF files.
//
// It reads from an io.ReaderAt and needs neither the kernel nor a mount nor any
// privilege. All compressions that mksquashfs still writes are read (gzip, lzo,
// xz, lz4, zstd), as are all types of inode. [FS.Walk] lists an image in a fixed
// order; [FS.Stream] adds the content of the files, decompressed on all cores
// ahead of the reader.
//
// An image is hostile until proven otherwise: every number in it is checked
// before use, memory is bounded by [Options] and not by what the image claims, and
// whatever breaks the format ends in an error that wraps [ErrCorrupt],
// [ErrUnsupported] or [ErrLimit] and says what is wrong. Names are checked, so
// that a path can be joined to a directory; targets of symbolic links are not,
// because they mean nothing until something follows them.
//
// The format is described in the Linux kernel (fs/squashfs/squashfs_fs.h) and at
// https://dr-emann.github.io/squashfs/. Nothing about SIF, OCI or tar may enter.
package squashfs
