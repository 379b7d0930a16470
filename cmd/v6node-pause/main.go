//go:build linux

// Command v6node-pause is the first process of a sandbox: it holds the
// sandbox's namespaces open and does nothing else until it is told to end.
//
// It is the only content of the sandbox image that the embedded containerd
// runs, and must be built static. It has no child to reap: v6node never shares
// a PID namespace between the containers of a sandbox.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
