package image

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// TryLogin asks a registry whether it takes a login, as a pull would. asked is
// false when it answers anybody, so that the login was not looked at. Errors have
// one of the kinds, or are ctx's own; none has the password in it.
func (r *Resolver) TryLogin(ctx context.Context, l Login) (asked bool, err error) {
	host, path, _ := strings.Cut(l.Registry, "/")
	failed := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e := classify(l.Registry, err)
		what := "cannot be reached"
		if e.Kind == ErrDenied {
			what = "refuses the login of " + l.Username
		}
		e.text = fmt.Sprintf("the registry %s %s (%v)", l.Registry, what, e.reason())
		return e
	}
	places, err := r.registries.access.places(host, r.registries.transport)
	if err != nil {
		return false, err
	}
	at := places[len(places)-1] // the registry itself, which the login is for
	defer at.close()
	registry, err := at.registry()
	if err != nil {
		return false, failed(err)
	}
	inner := at.through(false)
	challenge, err := transport.Ping(ctx, registry, inner)
	if err != nil {
		return false, failed(err)
	}
	if asked = challenge.Scheme != ""; !asked {
		return false, nil
	}
	var scopes []string
	if path != "" {
		scopes = append(scopes, "repository:"+path+":"+transport.PullScope)
	}
	authorized, err := transport.NewWithContext(ctx, registry, authn.FromConfig(authConfig(l)), inner, scopes)
	if err != nil {
		return true, failed(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, registry.Scheme()+"://"+registry.RegistryStr()+"/v2/", nil)
	if err != nil {
		return true, failed(err)
	}
	resp, err := (&http.Client{Transport: authorized}).Do(req)
	if err != nil {
		return true, failed(err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return true, failed(err)
	}
	return true, nil
}
