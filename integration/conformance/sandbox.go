package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/v6node/v6node/cni"
	"github.com/v6node/v6node/runtime"
)

func runtimeBehaviours() []behaviour {
	return []behaviour{
		{"runtime", "the runtime tells what it is and how it makes control groups", func(ctx context.Context, b *bench) error {
			if err := b.rt.Ready(ctx); err != nil {
				return err
			}
			i := b.rt.Info()
			if i.Name == "" || i.Version == "" || i.APIVersion != "v1" || i.CgroupDriver == "" {
				return fmt.Errorf("it tells %+v", i)
			}
			return nil
		}},
	}
}

func sandboxBehaviours() []behaviour {
	return []behaviour{
		{"sandbox", "a sandbox starts and tells its network namespace", func(ctx context.Context, b *bench) error {
			a, err := b.prepare(ctx, order{})
			if err != nil {
				return err
			}
			if !a.sandbox.Ready || a.sandbox.NetNS == "" || a.sandbox.Name != a.spec.Name {
				return fmt.Errorf("it tells %+v", a.sandbox)
			}
			return nil
		}},
		{"sandbox", "the network of a sandbox leads nowhere", func(ctx context.Context, b *bench) error {
			a, err := b.prepare(ctx, order{})
			if err != nil {
				return err
			}
			ns, err := cni.OpenNetns(a.sandbox.NetNS)
			if err != nil {
				return err
			}
			return errors.Join(b.advise(ns.Verify()), ns.Close())
		}},
		{"sandbox", "a listener that is opened from outside is reached from inside, and nothing else is", func(ctx context.Context, b *bench) error {
			return listenInside(ctx, b, nil)
		}},
		{"sandbox", "the same sandbox name needs another attempt", func(ctx context.Context, b *bench) error {
			a, err := b.prepare(ctx, order{})
			if err != nil {
				return err
			}
			if id, err := b.rt.RunSandbox(ctx, a.spec); err == nil && id != a.sandboxID {
				return errors.New("the same sandbox was started twice")
			}
			a.spec.Attempt++
			_, err = b.rt.RunSandbox(ctx, a.spec)
			return err
		}},
		{"sandbox", "sandboxes and containers are found by their labels, with what crictl shows", func(ctx context.Context, b *bench) error {
			a, err := b.run(ctx, args("wait"))
			if err != nil {
				return err
			}
			sandboxes, err := b.rt.ListSandboxes(ctx, b.labels())
			if err != nil {
				return err
			}
			containers, err := b.rt.ListContainers(ctx, b.labels())
			if err != nil {
				return err
			}
			if len(sandboxes) != 1 || len(containers) != 1 || sandboxes[0].ID != a.sandboxID || containers[0].ID != a.containerID || containers[0].SandboxID != a.sandboxID {
				return fmt.Errorf("it lists %+v and %+v", sandboxes, containers)
			}
			have := containers[0].Labels
			if have["io.kubernetes.pod.name"] != a.spec.Name || have["io.kubernetes.pod.namespace"] != "vantage6" || have["io.kubernetes.container.name"] != "algorithm" {
				return fmt.Errorf("the container has the labels %v", have)
			}
			return nil
		}},
		{"sandbox", "removal may be repeated and leaves no control group", removal},
	}
}

// advise names this runtime's own directories in the command that cures a
// foreign network.
func (b *bench) advise(err error) error {
	var foreign *cni.ForeignNetworkError
	if info := b.rt.Info(); errors.As(err, &foreign) {
		foreign.Layout = cni.Layout{ConfDir: info.CNIConfDir}
		if len(info.CNIBinDirs) > 0 {
			foreign.Layout.BinDir = info.CNIBinDirs[0]
		}
	}
	return err
}

func listenInside(ctx context.Context, b *bench, users *runtime.IDMap) (err error) {
	a, err := b.prepare(ctx, order{users: users})
	if err != nil {
		return err
	}
	ns, err := cni.OpenNetns(a.sandbox.NetNS)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	l, err := ns.Listen("127.0.0.2:0")
	if err != nil {
		return err
	}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		if conn, err := l.Accept(); err == nil {
			_ = conn.Close() // the other end has seen it
		}
	}()
	defer func() {
		_ = l.Close() // also ends Accept
		<-accepted
	}()
	inside := l.Addr().String()
	// The registry listens on the machine's own loopback.
	outside := []string{b.registry.Host(), "8.8.8.8:53", "192.0.2.1:80"}
	if own, ok := machineAddress(); ok {
		outside = append(outside, own)
	}
	if err := a.start(ctx, args(append([]string{"connect", inside}, outside...)...)); err != nil {
		return err
	}
	if _, err := a.end(ctx); err != nil {
		return err
	}
	out, err := a.output("stdout")
	if err != nil {
		return err
	}
	for _, address := range append([]string{inside}, outside...) {
		_, rest, found := strings.Cut(out, address+" ")
		ok := strings.HasPrefix(rest, "ok\n")
		if !found || ok != (address == inside) {
			return fmt.Errorf("connecting from the sandbox to %s: %s", address, out)
		}
	}
	return nil
}

// machineAddress is an address of this machine with the port of nobody: a
// refused connection would show that there is a way.
func machineAddress() (string, bool) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", false
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return net.JoinHostPort(n.IP.String(), "9"), true
		}
	}
	return "", false
}

func removal(ctx context.Context, b *bench) error {
	a, err := b.run(ctx, order{args: []string{"wait"}, resources: runtime.Resources{PidsLimit: 50}})
	if err != nil {
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	for range 2 {
		if err := errors.Join(
			b.rt.StopContainer(ctx, a.containerID, 0), b.rt.RemoveContainer(ctx, a.containerID),
			b.rt.StopSandbox(ctx, a.sandboxID), b.rt.RemoveSandbox(ctx, a.sandboxID), a.group.Remove(ctx),
		); err != nil {
			return err
		}
	}
	if _, err := a.end(ctx); !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("waiting for the removed container: %w", err)
	}
	if _, err := b.rt.SandboxStatus(ctx, a.sandboxID); !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("asking for the removed sandbox: %w", err)
	}
	if _, err := a.group.ReadBack(); !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("the control group %s is left (%w)", a.group.Parent(), err)
	}
	return nil
}
