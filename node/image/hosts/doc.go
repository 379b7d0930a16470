// Package hosts reads where the images of a registry can be had, and how: the
// hosts.toml files, with mirrors and certificates, that containerd reads in
// certs.d, and the certificates that Docker and CRI-O have in theirs.
//
// https://github.com/containerd/containerd/blob/main/docs/hosts.md describes the
// format. What containerd does with a file the node does too, with one exception: a
// file that cannot be read is an error, not a file that is not there.
package hosts
