package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/v6node/v6node/runtime"
)

// strangers are ids that should be nobody's on any machine: below them are those
// of systemd's containers, above them those that are negative for some.
var strangers = runtime.IDMap{First: 0x7fff0000}

// owned is the user whose files a container in a user namespace is given.
const owned = 1234

func userBehaviours() []behaviour {
	return []behaviour{
		{"container", "in a user namespace the container's root is not the machine's", func(ctx context.Context, b *bench) error {
			if err := b.mapsUsers(); err != nil {
				return err
			}
			a, err := b.run(ctx, order{args: []string{"wait"}, users: &strangers})
			if err != nil {
				return err
			}
			if err := a.ready(ctx); err != nil {
				return err
			}
			st, err := b.rt.ContainerStatus(ctx, a.containerID)
			if err != nil {
				return err
			}
			var outside syscall.Stat_t
			if err := syscall.Stat(fmt.Sprintf("/proc/%d", st.PID), &outside); err != nil {
				return err
			}
			if outside.Uid != strangers.First || outside.Gid != strangers.First {
				return fmt.Errorf("user and group of the container's process are %d and %d on this machine, want %d", outside.Uid, outside.Gid, strangers.First)
			}
			return nil
		}},
		{"container", "in a user namespace a container is confined like any other, and files keep their owners", func(ctx context.Context, b *bench) error {
			if err := b.mapsUsers(); err != nil {
				return err
			}
			in, out, err := b.mounts()
			if err != nil {
				return err
			}
			file := filepath.Join(in, "owned")
			if err := errors.Join(os.WriteFile(file, []byte("x"), 0o400), os.Chown(file, owned, owned)); err != nil {
				return err
			}
			user := int64(owned)
			got, err := b.reportFrom(ctx, order{users: &strangers, change: func(k *runtime.ContainerSpec) {
				k.RunAsUser = &user
				k.Mounts = []runtime.Mount{{HostPath: in, ContainerPath: "/in", ReadOnly: true}, {HostPath: out, ContainerPath: "/out"}}
			}})
			if err != nil {
				return err
			}
			const none = "0000000000000000"
			err = errors.Join(
				got.are(map[string]string{
					"uid": fmt.Sprint(owned), "uid_map": fmt.Sprintf("0 %d %d", strangers.First, runtime.IDMapSize),
					"owner": fmt.Sprintf("%d:%[1]d", owned), "read owned": "ok", "write out": "ok",
					"CapEff": none, "CapPrm": none, "CapBnd": none, "NoNewPrivs": "1", "Seccomp": "2", "unmasked": "",
				}),
				got.fail("read-only file system", "write root", "write in"),
				got.fail("operation not permitted", "mount"))
			var written syscall.Stat_t
			if statErr := syscall.Stat(filepath.Join(out, "x"), &written); statErr != nil {
				return errors.Join(err, statErr)
			}
			if written.Uid != owned {
				err = errors.Join(err, fmt.Errorf("what the container's user %d has written belongs to user %d of this machine", owned, written.Uid))
			}
			return err
		}},
		{"sandbox", "the node listens inside a sandbox that has a user namespace", func(ctx context.Context, b *bench) error {
			if err := b.mapsUsers(); err != nil {
				return err
			}
			return listenInside(ctx, b, &strangers)
		}},
	}
}

// mapsUsers says why sandboxes cannot have user namespaces here.
func (b *bench) mapsUsers() (err error) {
	if os.Geteuid() != 0 || !b.rt.Info().UserNamespaces(b.o.Handler) {
		return skipped("the runtime's handler gives no user namespaces: an algorithm's root is then a user of this machine without any capability")
	}
	probe, err := runtime.NewMapProbe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, probe.Close()) }()
	if err := probe.Try(b.dir); errors.Is(err, runtime.ErrNotMappable) {
		return skipped(err.Error())
	} else if err != nil {
		return err
	}
	return nil
}
