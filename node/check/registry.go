package check

import (
	"context"
	"errors"
	"os"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/credentials"
)

// loginFiles looks whether the files with logins can be read, and their helpers run.
func (o Options) loginFiles(_ context.Context, report func(Result)) error {
	r := reporter(report)
	found := 0
	for _, place := range o.Access.Logins.Places() {
		f, err := credentials.Read(place)
		switch {
		case err != nil:
			r.fail("", "correct it, or name another one in registries.auth_files; registries.host_logins: false leaves those of docker and podman alone", "%v", err)
			continue
		case f == nil:
			continue
		}
		found++
		if info, err := os.Stat(place.Path); err == nil && info.Mode().Perm()&0o077 != 0 {
			r.warn("", "chmod 600 "+place.Path, "%s can be read by others than its owner", place.Path)
		}
		for _, h := range f.Helpers() {
			if err := credentials.LookHelper(h); err != nil {
				r.fail("", "install it, or take it out of "+place.Path, "%v", err)
			}
		}
		r.ok("", "%s is used", place.Path)
	}
	if found == 0 {
		r.ok("", "there are no files of docker or podman")
	}
	return nil
}

// mirrors looks whether the files with mirrors and certificates can be read.
func (o Options) mirrors(_ context.Context, report func(Result)) error {
	r := reporter(report)
	names, err := o.Access.Hosts.Names()
	if err != nil {
		r.fail("", "correct its permissions, or take it out of registries.certs_dirs", "%v", err)
	}
	for _, name := range names {
		all, err := o.Access.Hosts.Load(name)
		for i := 0; err == nil && i < len(all); i++ {
			_, err = all[i].TLS()
		}
		if err != nil {
			r.fail("", "correct it; docs/registries.md describes the format", "%v", err)
			continue
		}
		r.ok("", "%s can be read", name)
	}
	if len(names) == 0 && err == nil {
		r.ok("", "no mirrors and certificates are configured")
	}
	return nil
}

// registry looks whether a login of docker_registries is taken.
func (o Options) registry(c config.Registry) func(context.Context, func(Result)) error {
	return func(ctx context.Context, report func(Result)) (err error) {
		r := reporter(report)
		resolver := image.New(image.Options{Access: o.Access, UserAgent: "v6node/" + o.Version})
		defer func() { err = errors.Join(err, resolver.Close()) }()
		asked, err := resolver.TryLogin(ctx, image.Login{Registry: c.Registry, Username: c.Username, Password: c.Password.Reveal()})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, image.ErrDenied):
			r.fail("", "correct username and password of this registry in docker_registries; many registries want a token in place of the password", "%v", err)
		case err != nil:
			r.fail("", "correct docker_registries, have the firewall let this machine out to it, or set HTTPS_PROXY in the environment of v6node and of the runtime", "%v", err)
		case !asked:
			r.ok("", "it answers without asking for the login")
		default:
			r.ok("", "it takes the login of %s", c.Username)
		}
		return nil
	}
}
