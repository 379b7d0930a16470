package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/runtime"
)

func imageBehaviours() []behaviour {
	return []behaviour{
		{"images", "an image is pulled by its digest from a registry on loopback, found by it, and removed", func(ctx context.Context, b *bench) error {
			ref, err := b.push(b.registry, b.name+"/removed", ballast(4<<20, 1))
			if err != nil {
				return err
			}
			for range 2 { // the second time it is there
				if err := b.pull(ctx, ref.Pinned, nil); err != nil {
					return err
				}
			}
			img, err := b.rt.Image(ctx, ref.Pinned)
			if err != nil {
				return err
			}
			if !slices.Contains(img.RepoDigests, ref.Pinned) || img.Size < 4<<20 {
				return fmt.Errorf("the runtime tells of it: %+v", img)
			}
			for range 2 {
				if err := b.rt.RemoveImage(ctx, ref.Pinned); err != nil {
					return err
				}
			}
			if _, err := b.rt.Image(ctx, ref.Pinned); !errors.Is(err, runtime.ErrImageNotFound) {
				return fmt.Errorf("after its removal: %w", err)
			}
			return nil
		}},
		{"images", "failures of a pull have their kinds", pullErrors},
		{"images", "a registry's password is asked for and used", func(ctx context.Context, b *bench) error {
			private, err := imagekit.Serve(ctx, imagekit.RegistryOptions{Username: "user", Password: "password"})
			if err != nil {
				return err
			}
			defer private.Close()
			ref, err := b.push(private, b.name+"/private", nil)
			if err != nil {
				return err
			}
			if err := b.pull(ctx, ref.Pinned, nil); !errors.Is(err, runtime.ErrRegistryDenied) {
				return fmt.Errorf("without a password: %w", err)
			}
			return b.pull(ctx, ref.Pinned, &runtime.Auth{Username: "user", Password: "password"})
		}},
		{"images", "of two that pull the same image one may give up", func(ctx context.Context, b *bench) error {
			return givenUp(ctx, b)
		}},
	}
}

func pullErrors(ctx context.Context, b *bench) error {
	foreign, err := imagekit.Build(imagekit.Spec{Binary: b.o.Program, OS: "linux", Architecture: "s390x"})
	if err != nil {
		return err
	}
	index, err := imagekit.Index(foreign)
	if err != nil {
		return err
	}
	other, err := b.registry.PushIndex(strings.ToLower(b.name)+"/other", "1", index)
	if err != nil {
		return err
	}
	gone := "@sha256:" + strings.Repeat("0", 64)
	var errs []error
	for _, t := range []struct {
		ref  string
		kind error
	}{
		{b.registry.Host() + "/denied/unauthorized" + gone, runtime.ErrImageNotFound},
		{"127.0.0.1:1/x" + gone, runtime.ErrRegistryUnreachable},
		{"no-such-host.invalid/x" + gone, runtime.ErrRegistryUnreachable},
		{other.Pinned, runtime.ErrWrongPlatform},
		{"127.0.0.1:1/UPPER" + gone, runtime.ErrInvalid},
	} {
		if err := b.pull(ctx, t.ref, nil); !errors.Is(err, t.kind) {
			errs = append(errs, fmt.Errorf("%s should be %q but is: %w", t.ref, t.kind, err))
		}
	}
	b.registry.Refuse(503)
	defer b.registry.Refuse(0)
	if err := b.pull(ctx, b.registry.Host()+"/busy"+gone, nil); !errors.Is(err, runtime.ErrRegistryUnreachable) {
		errs = append(errs, fmt.Errorf("a registry that answers 503: %w", err))
	}
	return errors.Join(errs...)
}

func givenUp(ctx context.Context, b *bench) error {
	ref, err := b.push(b.registry, b.name+"/held", ballast(1<<20, 2))
	if err != nil {
		return err
	}
	release := b.registry.HoldBlobs()
	defer release()
	pull := func(ctx context.Context) <-chan error {
		out := make(chan error, 1)
		go func() {
			_, err := b.rt.PullImage(ctx, ref.Pinned, nil, runtime.PullOptions{})
			out <- err
		}()
		return out
	}
	b.pulled = append(b.pulled, ref.Pinned)
	impatient, give := context.WithCancel(ctx)
	defer give()
	first := pull(impatient)
	if err := b.registry.WaitHeld(ctx, 1); err != nil {
		return err
	}
	second := pull(ctx)
	give()
	if err := <-first; !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("the one that gave up: %w", err)
		release()
		return errors.Join(err, <-second)
	}
	release()
	return <-second
}
