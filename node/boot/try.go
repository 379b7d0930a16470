package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/runtime/embedded"
)

// Trial is a managed containerd that is started only to be tried.
type Trial struct {
	d    *embedded.Containerd
	dir  string
	stop context.CancelFunc
	wg   sync.WaitGroup
	ran  error
}

// TryManaged starts a managed containerd in a directory of its own, as a node
// would. The caller closes it. Of the options only BundleDirs, PluginBinary and
// Log are used.
func TryManaged(ctx context.Context, o Options) (_ *Trial, err error) {
	bundle, err := embedded.FindBundle(o.BundleDirs...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRuntime, err)
	}
	t := &Trial{}
	if t.dir, err = os.MkdirTemp("", "v6node-try-"); err != nil {
		return nil, err
	}
	t.d, err = embedded.Start(ctx, embedded.Config{
		Root: filepath.Join(t.dir, "root"), State: filepath.Join(t.dir, "state"), Bundle: bundle, PluginBinary: o.PluginBinary,
		CNIConfList: cni.ConfList(), CNIConfName: cni.ConfName, Log: o.Log,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrRuntime, err), os.RemoveAll(t.dir))
	}
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	t.stop = stop
	t.wg.Go(func() { t.ran = t.d.Run(own) })
	return t, nil
}

// HaveManaged tells, by its error, why a managed containerd could not be started
// without root for want of its programs.
func HaveManaged(bundleDirs []string) error {
	bundle, err := embedded.FindBundle(bundleDirs...)
	if err != nil {
		return err
	}
	_, err = bundle.RootlessKit()
	return err
}

// Endpoint of the containerd.
func (t *Trial) Endpoint() string { return t.d.Endpoint() }

// Restart kills the containerd, which its supervision then starts again.
func (t *Trial) Restart(context.Context) error { return syscall.Kill(t.d.PID(), syscall.SIGKILL) }

// Close ends the containerd and removes everything that it had.
func (t *Trial) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	stopped, err := t.d.Stop(ctx)
	if err == nil && !stopped {
		err = errors.New("something still lives in the containerd that was tried")
	}
	if err != nil {
		// What lives in it is looked after by its shims; its files stay.
		err = errors.Join(err, t.d.Detach())
		t.stop()
		t.wg.Wait()
		return errors.Join(err, t.ran)
	}
	t.stop()
	t.wg.Wait()
	return errors.Join(t.ran, os.RemoveAll(t.dir))
}
