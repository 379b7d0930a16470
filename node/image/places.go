package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/v6node/v6node/node/image/credentials"
	"github.com/v6node/v6node/node/image/hosts"
)

// Access is how registries are reached: by which mirrors, with which certificates and logins. One value serves
// container images, signatures and SIF files, and says with which login the runtime pulls. The zero value asks
// registries directly and anonymously. It is safe for concurrent use.
type Access struct {
	Logins *credentials.Store // nil: none
	Hosts  hosts.Directories

	once   sync.Once
	direct *http.Transport // for what no certificates are configured
}

// find returns the login for a repository. Its errors are *Error or ctx's.
func (a *Access) find(ctx context.Context, repository string) (Login, bool, error) {
	if a.Logins == nil {
		return Login{}, false, nil
	}
	l, ok, err := a.Logins.Find(ctx, repository)
	if err != nil && ctx.Err() != nil {
		return Login{}, false, ctx.Err()
	}
	if err != nil {
		return Login{}, false, &Error{Ref: repository, Kind: ErrUnreachable, Cause: err, text: fmt.Sprintf("the login for %s cannot be had: %v", repository, err)}
	}
	return l, ok, nil
}

// transport is the network side without anything of a registry's own.
func (a *Access) transport() *http.Transport {
	a.once.Do(func() { a.direct = newTransport() })
	return a.direct
}

// place is one host that has the images of a registry.
type place struct {
	hosts.Host
	domain string // the registry
	access *Access
	inner  http.RoundTripper
	own    *http.Transport // inner, where it is this place's alone
}

// places are where the images of a registry can be had, in the order in which they are asked. over replaces the
// network side of hosts without certificates; may be nil.
func (a *Access) places(domain string, over http.RoundTripper) ([]*place, error) {
	list, err := a.Hosts.Load(domain)
	if err != nil {
		return nil, &Error{Ref: domain, Kind: ErrUnreachable, Cause: err, text: fmt.Sprintf("the registry %s cannot be asked: %v", domain, err)}
	}
	if list == nil {
		list = []hosts.Host{{Path: "/v2", Resolve: true, Pull: true}}
	}
	var out []*place
	for _, h := range list {
		if h.Host == "" {
			h.Host = domain
		}
		p := &place{Host: h, domain: domain, access: a, inner: over}
		secured, err := h.TLS()
		if err != nil {
			return nil, &Error{Ref: domain, Kind: ErrUnreachable, Cause: err, text: fmt.Sprintf("the registry %s cannot be asked: %v", domain, err)}
		}
		if over == nil {
			p.inner = a.transport()
		}
		if secured != nil || h.DialTime > 0 {
			p.own = newTransport()
			p.own.TLSClientConfig = secured
			if h.DialTime > 0 {
				p.own.DialContext = (&net.Dialer{Timeout: h.DialTime, KeepAlive: 30 * time.Second}).DialContext
			}
			p.inner = p.own
		}
		p.inner = paged{p.inner}
		out = append(out, p)
	}
	return out, nil
}

// close gives up idle connections.
func (p *place) close() {
	if p.own != nil {
		p.own.CloseIdleConnections()
	}
}

// plain tells whether the host may be spoken to without TLS: on this machine, or where the administrator says so.
func (p *place) plain() bool {
	return p.Scheme == "http" || p.Scheme == "" && isLoopback(p.Host.Host)
}

// through is the way to the host by the rules of this package. whole answers may have any length.
func (p *place) through(whole bool) http.RoundTripper {
	return guard{inner: addressed{p}, host: p.hostName(), plain: p.plain(), loopback: isLoopback(p.Host.Host), whole: whole}
}

// hostName is what the host is called in requests.
func (p *place) hostName() string {
	if r, err := p.registry(); err == nil {
		return r.RegistryStr()
	}
	return p.Host.Host
}

// registry is the host as the registry library names it.
func (p *place) registry() (name.Registry, error) {
	var o []name.Option
	if p.plain() {
		o = append(o, name.Insecure)
	}
	return name.NewRegistry(p.Host.Host, o...)
}

// repository is a repository of the registry at this host.
func (p *place) repository(path string) (name.Repository, error) {
	r, err := p.registry()
	if err != nil {
		return name.Repository{}, err
	}
	return r.Repo(path), nil
}

// String is how messages name the place.
func (p *place) String() string {
	if p.Mirror {
		return "the mirror " + p.Host.Host
	}
	return "its registry"
}

// login returns the login for a repository at this host. That of the registry goes to the registry only: a mirror
// gets its own.
func (p *place) login(ctx context.Context, path string) (Login, bool, error) {
	if !p.Mirror {
		if l, ok, err := p.access.find(ctx, p.domain+"/"+path); ok || err != nil || credentials.Normalize(p.Host.Host) == p.domain {
			return l, ok, err
		}
	}
	return p.access.find(ctx, p.Host.Host+"/"+path)
}

// keychain makes a place the keychain of the registry library.
type keychain struct{ *place }

// Resolve implements authn.Keychain.
func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext implements authn.ContextKeychain.
func (k keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	l, ok, err := k.login(ctx, strings.TrimPrefix(strings.TrimPrefix(r.String(), r.RegistryStr()), "/"))
	if err != nil {
		return nil, err
	}
	if !ok {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authConfig(l)), nil
}

func authConfig(l Login) authn.AuthConfig {
	return authn.AuthConfig{Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken}
}

// addressed sends requests to where a place has the API, with what is to go with them.
type addressed struct{ *place }

func (a addressed) RoundTrip(req *http.Request) (*http.Response, error) {
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	// Redirects and token services have addresses of their own.
	if !ok || req.Response != nil || req.URL.Host != a.hostName() || !a.Mirror && a.Path == "/v2" && len(a.Header) == 0 {
		return a.inner.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	req.URL.Path, req.URL.RawPath = a.Path+"/"+rest, ""
	maps.Copy(req.Header, a.Header)
	if a.Mirror && rest != "" { // one mirror may be that of several registries
		q := req.URL.Query()
		q.Set("ns", a.domain)
		req.URL.RawQuery = q.Encode()
	}
	return a.inner.RoundTrip(req)
}

// eachPlace asks one place after the other until one answers. What a mirror does not have or give the next place may;
// only other bytes than a digest stands for are final, for a mirror that sends those is not to be trusted with what
// comes next.
func eachPlace[T any](places []*place, ref string, fits func(*place) bool, ask func(*place) (T, error)) (T, error) {
	var none T
	var failures []*Error
	var asked []*place
	for _, p := range places {
		if !fits(p) {
			continue
		}
		got, err := ask(p)
		if err == nil {
			return got, nil
		}
		if errors.Is(err, context.Canceled) {
			return none, err
		}
		e := classify(ref, err)
		if errors.Is(err, errOtherBytes) {
			return none, e
		}
		failures, asked = append(failures, e), append(asked, p)
	}
	if len(failures) == 0 {
		return none, &Error{Ref: ref, Kind: ErrUnreachable, Cause: errors.New("hosts.toml has no host with the capabilities that are needed")}
	}
	last := failures[len(failures)-1]
	if len(failures) == 1 && !asked[0].Mirror || last.text != "" {
		return none, last
	}
	var all []string
	for i, e := range failures {
		all = append(all, fmt.Sprintf("%s: %v", asked[i], e.reason()))
	}
	return none, &Error{Ref: ref, Kind: last.Kind, Cause: errors.New(strings.Join(all, "; "))}
}

// errOtherBytes: what came has not the digest that was asked for.
var errOtherBytes = errors.New("other bytes than the digest says")
