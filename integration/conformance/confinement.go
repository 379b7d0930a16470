package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/runtime"
)

func confinementBehaviours() []behaviour {
	return []behaviour{
		{"container", "a container has no capability, no new privileges, filtered system calls and masked kernel files", func(ctx context.Context, b *bench) error {
			got, err := b.report(ctx, nil)
			if err != nil {
				return err
			}
			const none = "0000000000000000"
			return errors.Join(
				got.are(map[string]string{
					"CapEff": none, "CapPrm": none, "CapBnd": none, "CapInh": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2",
					"unmasked": "", "hostname": "probe", "processes": "1", "stdin": "/dev/null",
				}),
				got.fail("operation not permitted", "mount"),
				// Filters answer in their own ways.
				got.fail("not", "unshare"))
		}},
		{"container", "a container sees two interfaces and no name server", func(ctx context.Context, b *bench) error {
			got, err := b.report(ctx, nil)
			if err != nil {
				return err
			}
			interfaces := strings.Fields(got["interfaces"])
			slices.Sort(interfaces)
			if !slices.Equal(interfaces, []string{"eth0", "lo"}) {
				return fmt.Errorf("it sees the interfaces %q", interfaces)
			}
			if strings.Contains(got["resolv.conf"], "nameserver") {
				return fmt.Errorf("the machine's resolv.conf is in the container: %q", got["resolv.conf"])
			}
			return nil
		}},
		{"container", "nothing can be written but what is mounted writable", func(ctx context.Context, b *bench) error {
			got, err := b.reportMounts(ctx, false)
			if err != nil {
				return err
			}
			return errors.Join(got.are(map[string]string{"env A": "1=2", "write out": "ok"}), got.fail("read-only file system", "write root", "write sysctl", "write in"))
		}},
		{"container", "a mount below a read-only one is read-only too", func(ctx context.Context, b *bench) error {
			if !b.rt.Info().RecursiveReadOnly(b.o.Handler) {
				return skipped("the runtime's handler cannot do it: mounts below a read-only one keep their own mode, so name a database's own directory and not one above other mounts")
			}
			got, err := b.reportMounts(ctx, true)
			if err != nil {
				return err
			}
			return got.fail("read-only file system", "write submount")
		}},
		{"container", "a container runs as the user of its image, or as another one that is asked for", func(ctx context.Context, b *bench) error {
			ref, err := b.push(b.registry, b.name+"/user", func(s *imagekit.Spec) { s.User = "1000:1000" })
			if err != nil {
				return err
			}
			if err := b.pull(ctx, ref.Pinned, nil); err != nil {
				return err
			}
			got, err := b.report(ctx, func(k *runtime.ContainerSpec) { k.Image = ref.Pinned })
			if err != nil {
				return err
			}
			other := int64(1234)
			asked, err := b.report(ctx, func(k *runtime.ContainerSpec) { k.RunAsUser = &other })
			return errors.Join(err, got.are(map[string]string{"uid": "1000"}), asked.are(map[string]string{"uid": "1234"}))
		}},
	}
}

// report is what a container told of itself.
type report map[string]string

// are compares some of it.
func (r report) are(want map[string]string) error {
	var errs []error
	for k, v := range want {
		if r[k] != v {
			errs = append(errs, fmt.Errorf("%s is %q and should be %q", k, r[k], v))
		}
	}
	return errors.Join(errs...)
}

// fail tells that attempts did not fail as they should.
func (r report) fail(how string, what ...string) error {
	var errs []error
	for _, w := range what {
		if !strings.Contains(r[w], how) {
			errs = append(errs, fmt.Errorf("%s: %q instead of %q", w, r[w], how))
		}
	}
	return errors.Join(errs...)
}

func (b *bench) report(ctx context.Context, change func(*runtime.ContainerSpec)) (report, error) {
	return b.reportFrom(ctx, order{change: change})
}

func (b *bench) reportFrom(ctx context.Context, o order) (report, error) {
	o.args = []string{"report"}
	out, _, err := b.finish(ctx, o)
	if err != nil {
		return nil, err
	}
	var got report
	return got, json.Unmarshal([]byte(out), &got)
}

// reportMounts mounts a directory read-only and one writable, the first with
// another mount in it if asked to.
func (b *bench) reportMounts(ctx context.Context, nested bool) (_ report, err error) {
	in, out, err := b.mounts()
	if err != nil {
		return nil, err
	}
	sub := filepath.Join(in, "sub")
	if err := openDir(sub); err != nil {
		return nil, err
	}
	if nested {
		if err := syscall.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
			return nil, skipped("this user may not mount, which is needed to try it: " + err.Error())
		}
		defer func() { err = errors.Join(err, syscall.Unmount(sub, syscall.MNT_DETACH)) }()
	}
	return b.report(ctx, func(k *runtime.ContainerSpec) {
		k.Mounts = []runtime.Mount{{HostPath: in, ContainerPath: "/in", ReadOnly: true}, {HostPath: out, ContainerPath: "/out"}}
		k.Env = []runtime.EnvVar{{Name: "A", Value: "1=2"}}
	})
}

// mounts makes two directories for a container, whoever it runs as.
func (b *bench) mounts() (in, out string, err error) {
	b.count++
	in, out = filepath.Join(b.dir, fmt.Sprint("in", b.count)), filepath.Join(b.dir, fmt.Sprint("out", b.count))
	return in, out, errors.Join(openDir(in), openDir(out))
}

func openDir(dir string) error {
	return errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777))
}
