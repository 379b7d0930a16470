package image

import (
	"context"

	"github.com/v6node/v6node/node/image/credentials"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/runtime"
)

// Login is what a registry wants before it shows an image.
type Login = credentials.Login

// Auth is the login with which the runtime pulls an image, or nil when there is none: that of the registry, else that
// of the first mirror that has one, where the runtime can keep it from others. It names the host that it is for, so that containerd shows it to no other.
func (r *Resolver) Auth(ctx context.Context, ref string) (*runtime.Auth, error) {
	parsed, err := imageref.Parse(ref)
	if err != nil {
		return nil, nil // whoever pulls it says so
	}
	places, err := r.registries.access.places(parsed.Domain, r.registries.transport)
	if err != nil {
		return nil, err
	}
	var best *runtime.Auth
	for _, p := range places {
		p.close()
		if !p.Pull || p.Mirror && !r.mirrorLogins {
			continue
		}
		l, ok, err := p.login(ctx, parsed.Path)
		if err != nil {
			return nil, err
		}
		if ok && (best == nil || !p.Mirror) {
			best = &runtime.Auth{
				Server: "https://" + p.pullHost(), Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken,
			}
		}
	}
	return best, nil
}

// pullHost is what containerd calls the host.
func (p *place) pullHost() string {
	if p.Host.Host == "docker.io" {
		return "registry-1.docker.io"
	}
	return p.Host.Host
}
