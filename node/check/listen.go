package check

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// listening looks whether the node could open what it listens on outside of
// sandboxes. A node that runs has it open already.
func (o Options) listening(_ context.Context, report func(Result)) error {
	r := reporter(report)
	if at := o.Config.Metrics; !at.IsZero() {
		listen(r, "metrics.listen", at.String())
	}
	if port := o.Config.SIF.RegistryPort; port != 0 && len(o.Config.SIF.Directories) > 0 {
		listen(r, "sif.registry_port", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	return nil
}

func listen(r reporter, key, address string) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		dir := filepath.Dir(path)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			r.fail(key, "make the directory, or correct "+key, "there is no directory %s", dir)
		} else if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			r.fail(key, "let the node's user write to it, or correct "+key, "no socket can be made in %s: %v", dir, err)
		} else {
			r.ok(key, "%s can be made", path)
		}
		return
	}
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		r.skip(key, "%s is in use, by this node if it runs, else by another program", address)
	case err != nil:
		r.fail(key, "choose another address or port as "+key, "%s cannot be listened on: %v", address, err)
	default:
		l.Close()
		r.ok(key, "%s is free", address)
	}
}
