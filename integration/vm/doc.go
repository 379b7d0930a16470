// Command vm runs tests inside a virtual machine: a current Debian with systemd,
// the unified cgroup hierarchy, a systemd user session and an unprivileged user,
// whatever the machine is on which it was started.
//
// The base file system is made once by mmdebstrap and kept in a cache; every run
// works on a copy that ends with it. Programs and test binaries come on a second,
// read-only disk. The machine has no network. It is started by qemu, with KVM
// where that works and by emulation elsewhere, and it is powered off when the
// tests in suites.go are over, or at the deadline.
//
// The same program runs in the machine (`vm guest`): it executes the tests and
// sends what they print through a virtio port. A test that did not run there is a
// failure, and so is one that was skipped.
package main
