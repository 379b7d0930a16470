// Package conformance tries on a container runtime what the node relies on:
// sandboxes and their network, the confinement of containers, limits, logs,
// ends and events, images, a restart of the runtime. It needs nothing but the
// runtime's socket: the image that it runs is made from this program itself and
// served on loopback.
//
// `v6node check --run-tests` runs it against an administrator's runtime, the
// integration tests against every runtime that is supported. A behaviour is
// stated once, here, for both.
//
// What may not enter: servers, nodes and tasks (package integration has the
// scenarios with those), and any knowledge of one runtime by its name: what
// runtimes differ in is runtime.Info.
package conformance
