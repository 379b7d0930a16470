// Package installed tests what the Debian package installs, on a machine with a
// living systemd: the node as a service, and what a normal user does with it. Its
// tests change the machine that they run on, so they have a build tag of their
// own, vm, and run in the virtual machine of integration/vm.
package installed
