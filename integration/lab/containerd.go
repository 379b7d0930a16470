package lab

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/runtime/embedded"
)

// Containerd starts a managed containerd with the sandbox network, from the
// programs in bundle, that several nodes can share. Its files are in dir/root, its
// socket in dir/run; it logs nothing here.
func Containerd(ctx context.Context, dir, bundle, plugin string) (*embedded.Containerd, error) {
	b, err := embedded.FindBundle(bundle)
	if err != nil {
		return nil, err
	}
	return embedded.Start(ctx, embedded.Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "run"), Bundle: b,
		PluginBinary: plugin, CNIConfList: cni.ConfList(), CNIConfName: cni.ConfName, Log: slog.New(slog.DiscardHandler),
	})
}

// EndContainerd stops one within a minute. Sandboxes that are left are an error.
func EndContainerd(d *embedded.Containerd) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stopped, err := d.Stop(ctx)
	if err == nil && !stopped {
		err = errors.New("sandboxes are left")
	}
	return err
}
