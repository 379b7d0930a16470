// Package install puts v6node on a machine and takes it away again: its
// program, the bundle of the managed containerd, units and completions.
//
// Every file is replaced by renaming, so that a node which runs meanwhile keeps
// what it has open, and the next start of a program is of either version, whole.
// A record beside the bundle names what was written: Uninstall removes that, and
// an upgrade what the new version no longer has.
//
// What may not enter: what a node is and does. State and configuration are
// directories here, which only Purge removes.
package install
