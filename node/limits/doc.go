// Package limits says what one run may use: the limits themselves, their syntax
// in configuration and on the command line (one table for both), how defaults
// and rules combine, and whether a machine can hold them.
//
// It is pure: it reads no file, knows no runtime and no cgroup. What applies
// limits is in runtime and node/engine; docs/resources.md explains them to an
// administrator.
package limits
