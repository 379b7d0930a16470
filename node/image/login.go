package image

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/runtime"
)

// Login is what a registry wants before it shows an image.
type Login struct {
	Registry string // "host[:port]", or with "/path" for the repositories below; docker.io for Docker Hub
	Username string
	Password string
}

// String hides the password.
func (l Login) String() string { return l.Username + "@" + l.Registry }

// GoString hides the password.
func (l Login) GoString() string { return l.String() }

// logins finds the login of a repository. It is immutable.
type logins []Login

// find returns the login with the longest matching path.
func (ls logins) find(name string) (best Login, ok bool) {
	for _, l := range ls {
		at := strings.ToLower(l.Registry)
		if rest, hub := strings.CutPrefix(at, "index.docker.io"); hub && (rest == "" || rest[0] == '/') {
			at = "docker.io" + rest
		}
		if strings.HasPrefix(name+"/", at+"/") && (!ok || len(at) > len(best.Registry)) {
			best, ok = Login{Registry: at, Username: l.Username, Password: l.Password}, true
		}
	}
	return best, ok
}

// Resolve makes logins the keychain of the registry library.
func (ls logins) Resolve(r authn.Resource) (authn.Authenticator, error) {
	name := r.String()
	if rest, ok := strings.CutPrefix(name, "index.docker.io/"); ok {
		name = "docker.io/" + rest
	}
	l, ok := ls.find(name)
	if !ok {
		return authn.Anonymous, nil
	}
	return &authn.Basic{Username: l.Username, Password: l.Password}, nil
}

// Auth is the login for pulling an image, or nil when there is none.
func (r *Resolver) Auth(ref string) *runtime.Auth {
	parsed, err := imageref.Parse(ref)
	if err != nil {
		return nil
	}
	l, ok := r.logins.find(parsed.Repository())
	if !ok {
		return nil
	}
	return &runtime.Auth{Username: l.Username, Password: l.Password}
}
