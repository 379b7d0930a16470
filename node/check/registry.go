package check

import (
	"context"
	"errors"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
)

// registry looks whether a login of docker_registries is taken.
func (o Options) registry(c config.Registry) func(context.Context, func(Result)) error {
	return func(ctx context.Context, report func(Result)) (err error) {
		r := reporter(report)
		resolver := image.New(image.Options{UserAgent: "v6node/" + o.Version})
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
